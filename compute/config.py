from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

declare(
    "instance.expunge_delay_s",
    "duration_s",
    86400,
    minimum=0,
    maximum=31536000,
    label=_("Time in the recycle bin"),
    help=_("A destroyed instance can be recovered for this long; then it is expunged for good."),
)
declare(
    "instance.resume_after_host_restart",
    "boolean",
    True,
    scopes=("cluster",),
    label=_("Bring instances back after their host restarted"),
    help=_("An instance that ran when its host went down is started again as soon as the host is back."),
)
declare(
    "instance.stop_grace_s",
    "duration_s",
    60,
    minimum=1,
    maximum=3600,
    label=_("Time to shut down"),
    help=_("How long a guest may take to shut down before it is switched off."),
)
declare(
    "console.ticket_ttl_s",
    "duration_s",
    60,
    minimum=5,
    maximum=1800,
    label=_("Lifetime of a console ticket"),
    help=_("A ticket opens one console, once, within this time."),
)
