"""What one may do with settings."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("setting.view", _("See settings"))
declare("setting.change", _("Change settings"))
