"""Settings of networks that an administrator may change."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

DHCP_LEASE = declare(
    "network.dhcp_lease",
    "duration_s",
    86400,
    minimum=120,
    maximum=30 * 86400,
    label=_("DHCP lease"),
    help=_(
        "How long a guest may use its address before it asks again, in seconds. Applies when a server is next set up."
    ),
)
PROBE_TIMEOUT = declare(
    "network.probe_timeout",
    "duration_s",
    1,
    minimum=1,
    maximum=4,
    label=_("Address probe"),
    help=_("How long an address check listens on the wire for somebody who answers, in seconds."),
)
