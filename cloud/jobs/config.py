"""Settings of jobs."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

DAY_S = 86_400

declare(
    "job.kept_for",
    "duration_s",
    90 * DAY_S,
    minimum=DAY_S,
    maximum=3660 * DAY_S,
    label=_("Keep finished jobs for"),
    help=_("Older ones are deleted, but for those that still owe a clean-up."),
)
declare(
    "platform.is_draining",
    "boolean",
    False,
    label=_("Take no new work"),
    help=_(
        "Before an upgrade: what has begun goes on to its end, nothing new begins. `./mica status` tells what is left."
    ),
)
