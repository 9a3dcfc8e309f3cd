"""What infrastructure answers to lower and its own parts: who stands on what, and what machines hold."""

from typing import Any
from uuid import UUID

from django.dispatch import receiver

from cloud.common.relations import BLOCKS, LOST, declare
from cloud.infra import enrolment, signals
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.services import certificates, connection, desired
from cloud.infra.services import readiness as _readiness  # noqa: F401 - it registers
from cloud.jobs import machines
from cloud.jobs.origin import register_keys
from cloud.jobs.workflow import register_held

register_held(desired.is_held)
machines.fill(connection.machine)


@register_keys
def keys_of(agent: UUID) -> tuple[Agent | None, list[str]]:
    """What the agent may sign its messages with: nothing once its access was taken away."""
    row = Agent.objects.filter(pk=agent).first()
    return row, enrolment.hashes(row) if row else []


@receiver(signals.certificates_revoked, dispatch_uid="infra.certificates_revoked")
def certificates_revoked(**_: Any) -> None:
    certificates.tell_revoked()


declare(Zone, Cluster, by="zone", effect=BLOCKS)
declare(Cluster, Host, by="cluster", effect=BLOCKS)
declare(Host, Agent, by="host", effect=LOST)
