"""Settings of the audit trail."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

DAY_S = 86_400

declare(
    "audit.kept_for",
    "duration_s",
    400 * DAY_S,
    minimum=DAY_S,
    maximum=3660 * DAY_S,
    label=_("Keep the operation log for"),
    help=_("Older records are deleted."),
)
