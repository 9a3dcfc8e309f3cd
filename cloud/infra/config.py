"""Settings of infrastructure that an administrator may change while the platform runs (reference A4)."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

GIB = 1024**3
SCOPES = ("zone", "cluster", "host")

declare(
    "agent.certificate_life_days",
    "integer",
    90,
    minimum=30,
    maximum=825,
    label=_("Life of agents' certificates in days"),
    help=_("A machine asks for a new one by itself when two thirds of it are over."),
)
declare(
    "agent.upgrades_at_once",
    "integer",
    1,
    minimum=1,
    maximum=100,
    label=_("Agents upgraded at once"),
    help=_("How many machines at a time, when all agents are upgraded. It stops at the first that does not come back."),
)
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
declare(
    "doctor.quarantine_days",
    "integer",
    7,
    minimum=1,
    maximum=366,
    label=_("Days in quarantine"),
    help=_("What the doctor takes out of the way can be put back for so many days; then it is removed."),
)
declare(
    "doctor.patience",
    "duration_s",
    300,
    minimum=10,
    maximum=86400,
    label=_("Patience of the doctor"),
    help=_("How long a job or a machine may lag behind before the doctor tells of it."),
)
