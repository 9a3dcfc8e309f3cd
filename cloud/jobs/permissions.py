from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("job.view", _("See jobs"))
declare("job.cancel", _("Cancel jobs"))
declare("job.retry", _("Try what failed of many again"))
declare("job.settle", _("Settle stuck jobs"))
declare("state.view", _("See what is stuck"))
declare("state.settle", _("Settle the state of resources that no job is at work on"))
