"""What one may do with infrastructure."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("zone.view", _("See zones"))
declare("zone.create", _("Create zones"))
declare("zone.update", _("Change zones"))
declare("zone.enable", _("Enable zones"))
declare("zone.disable", _("Disable zones"))
declare("zone.delete", _("Delete zones"))
declare("cluster.view", _("See clusters"))
declare("cluster.create", _("Create clusters"))
declare("cluster.update", _("Change clusters"))
declare("cluster.enable", _("Enable clusters"))
declare("cluster.disable", _("Disable clusters"))
declare("cluster.delete", _("Delete clusters"))
declare("host.view", _("See hosts"))
declare("host.add", _("Add hosts"))
declare("host.update", _("Change hosts"))
declare("host.enable", _("Enable hosts"))
declare("host.disable", _("Disable hosts"))
declare("host.reconnect", _("Reconnect hosts"))
declare("host.delete", _("Delete hosts"))
declare("agent.view", _("See agents"))
declare("agent.upgrade", _("Upgrade agents"))
declare("agent.revoke", _("Revoke agents' access"))
declare("doctor.view", _("See what the doctor finds"))
declare("doctor.fix", _("Mend what the doctor finds"))
declare("doctor.restore", _("Put back what the doctor took out of the way"))
declare("doctor.purge", _("Remove what the doctor took out of the way"))
