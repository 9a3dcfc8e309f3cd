from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("instance.view", _("See instances"))
declare("instance.create", _("Create instances"))
declare("instance.update", _("Rename and describe instances"))
declare("instance.start", _("Start instances"))
declare("instance.stop", _("Stop instances"))
declare("instance.reboot", _("Reboot instances"))
declare("instance.destroy", _("Destroy instances"))
declare("instance.recover", _("Recover instances from the recycle bin"))
declare("instance.expunge", _("Expunge instances for good"))
declare("instance.console", _("Open an instance's console"))
declare("instance.tunnel", _("Open a connection into an instance"))
declare("unknown_domain.view", _("See domains that the platform does not know"))
declare("instance_offering.view", _("See instance offerings"))
declare("instance_offering.create", _("Create instance offerings"))
declare("instance_offering.update", _("Change instance offerings"))
declare("instance_offering.enable", _("Enable instance offerings"))
declare("instance_offering.disable", _("Disable instance offerings"))
declare("instance_offering.delete", _("Delete instance offerings"))
