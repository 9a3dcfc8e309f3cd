"""What one may do with metrics."""

from django.utils.translation import gettext_lazy as _

from cloud.common.permissions import declare

declare("metric.view", _("See metrics"))
