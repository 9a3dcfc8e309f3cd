"""What ended jobs owe to machines that were away: who owes what, and what waits for it. `cloud.jobs.cleaning` pays.

An undo whose machine is lost is written down and the job ends. Its resources stay locked, and what the service booked
for it stays booked, until the machine is back and has undone it; nothing new is begun on the machine before.
"""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict
from cloud.common.text import filled
from cloud.jobs import machines
from cloud.jobs.models import CleanUp, Job, JobResource
from cloud.jobs.workflow import Step

ACTIVITY = "cleaning_up"
TOPIC = "cleaned:"


def topic(agent: UUID | str) -> str:
    """What is woken when a machine owes nothing any more."""
    return f"{TOPIC}{agent}"


def owe(job: Job, position: int, step: Step, agent: UUID | str | None) -> None:
    """Write down that the undo of a step is owed; by the machine of `agent`, or by control after all machines.

    It keeps the job's attempt: a command that was sent already and is found late is the same, and is answered once.
    """
    machine = machines.find(agent) if agent else None
    CleanUp.objects.get_or_create(
        job=job,
        position=position,
        defaults={
            "name": type(step).__name__,
            "agent": agent,
            "machine": machine.name if machine else "",
            "attempt": job.attempt,
        },
    )


def owed_by(job: Job, agent: UUID | str | None = None) -> bool:
    """Whether the job owes anything yet; with `agent`, anything of that machine's."""
    owed = CleanUp.objects.owed().filter(job=job)
    return (owed.filter(agent=agent) if agent else owed).exists()


def is_owed_to(agent: UUID | str) -> bool:
    """Whether the machine has to clean up before anything new is begun on it."""
    return CleanUp.objects.owed().filter(agent=agent).exists()


def expect_none(*resources: Any) -> None:
    """Raise Conflict `clean_up_pending`, naming the machine, when an ended job owes a clean-up on one of these."""
    held = JobResource.objects.filter(is_held=True, resource_uuid__in=resources, job__finished_at__isnull=False).first()
    if held is None:
        return
    raise pending({held.resource_uuid: held.job_id})[held.resource_uuid]


def pending(held: dict[UUID, UUID]) -> dict[UUID, Conflict]:
    """Why nothing can be done yet with resources that ended jobs still hold ({resource: job}), by resource."""
    machines_of: dict[UUID, set[str]] = {}
    owed = CleanUp.objects.filter(job__in=set(held.values())).exclude(machine="") if held else ()
    for row in owed:
        machines_of.setdefault(row.job_id, set()).add(row.machine)
    return {resource: _pending(job, sorted(machines_of.get(job, ()))) for resource, job in held.items()}


def _pending(job: UUID, names: list[str]) -> Conflict:
    return Conflict(
        filled(
            _("An earlier job has left something on %(machine)s, which does not answer."),
            machine=", ".join(names) or _("a machine"),
        ),
        code="clean_up_pending",
        advice=_("It is cleaned up as soon as the machine is back; if it is gone for good, delete it."),
        job=f"/api/v1/jobs/{job}/",
        machines=names,
    )


def woken_on_commit(agent: UUID | None) -> None:
    """Have the jobs go on that waited for this machine, if it owes nothing any more."""
    from cloud.jobs import engine

    if agent is not None and not is_owed_to(agent):
        transaction.on_commit(lambda: engine.wake(topic(agent)), robust=True)
