"""Settings of infrastructure that an administrator may change while the platform runs (reference A4)."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

GIB = 1024**3
SCOPES = ("zone", "cluster", "host")

declare(
    "host.cpu_overprovisioning",
    "ratio",
    10.0,
    minimum=1,
    maximum=1000,
    scopes=SCOPES,
    label=_("CPU over-provisioning"),
    help=_("How many virtual CPUs may be promised for each hardware thread."),
)
declare(
    "host.memory_overprovisioning",
    "ratio",
    1.0,
    minimum=1,
    maximum=10,
    scopes=SCOPES,
    label=_("Memory over-provisioning"),
    help=_("How much memory may be promised for each byte a host has. More than 1.2 is not advised."),
)
declare(
    "host.reserved_memory",
    "size_bytes",
    GIB,
    minimum=0,
    maximum=1024 * GIB,
    scopes=SCOPES,
    label=_("Reserved memory"),
    help=_("Memory of a host that is kept for the host itself."),
)
