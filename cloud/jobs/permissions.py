from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("job.view", _("See jobs"))
declare("job.cancel", _("Cancel jobs"))
