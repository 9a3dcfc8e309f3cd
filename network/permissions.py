"""What one may do with networks."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("l2_network.view", _("See L2 networks"))
declare("l2_network.create", _("Create L2 networks"))
declare("l2_network.update", _("Change L2 networks"))
declare("l2_network.attach", _("Attach L2 networks to clusters"))
declare("l2_network.detach", _("Detach L2 networks from clusters"))
declare("l2_network.delete", _("Delete L2 networks"))
declare("l3_network.view", _("See L3 networks"))
declare("l3_network.create", _("Create L3 networks"))
declare("l3_network.update", _("Change L3 networks"))
declare("l3_network.delete", _("Delete L3 networks"))
declare("ip_range.view", _("See IP ranges"))
declare("ip_range.create", _("Add IP ranges"))
declare("ip_range.update", _("Change IP ranges"))
declare("ip_range.delete", _("Delete IP ranges"))
declare("ip_address.view", _("See IP addresses"))
declare("ip_address.reserve", _("Reserve IP addresses"))
declare("ip_address.release", _("Release reserved IP addresses"))
declare("nic.view", _("See network cards"))
