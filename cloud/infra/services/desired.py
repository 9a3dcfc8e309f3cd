"""The state that machines should have, in numbered sections: wanted here, computed when sent, held there.

An app registers who computes a section; whoever changes what it is computed from touches it, in the same transaction.
Changes within 200 ms go out together. What is lost on the way is sent again by the sweep and on an agent's hello.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest, Now

from cloud.celery import app
from cloud.common.errors import Problem
from cloud.common.wire import Desired, Document, Held
from cloud.infra.models import Agent, DesiredSection
from cloud.jobs import agents, engine

log = logging.getLogger(__name__)

COALESCE_S = 0.2
SEND_AGAIN_AFTER_S = 5

Wanted = tuple[str, str, int]
Provider = Callable[[Agent], Document]
P = TypeVar("P", bound=Provider)
_providers: dict[str, Provider] = {}


def provider(section: str) -> Callable[[P], P]:
    """Register who computes a section: `fn(agent) -> body`, from committed rows."""

    def register(compute: P) -> P:
        known = _providers.setdefault(section, compute)
        if known.__qualname__ != compute.__qualname__:
            raise ValueError(f"the section {section} is computed twice: {known} and {compute}")
        return compute

    return register


def touch(agent: Agent, *sections: str) -> list[Wanted]:
    """Say that sections of a machine changed: (agent uuid, section, number to wait for), in the caller's transaction.

    It is sent on commit. Callers who touch several machines use `touch_all`, which takes the rows in one order.
    """
    return touch_all([agent], *sections)


def touch_all(machines: Iterable[Agent], *sections: str) -> list[Wanted]:
    """As `touch`, for several machines at once; taken in uuid order, so that two callers never wait for each other."""
    keys = sorted({(machine.pk, section) for machine in machines for section in sections})
    rows = DesiredSection.objects.filter(agent__in={agent for agent, _section in keys}, section__in=sections)
    DesiredSection.objects.bulk_create(
        [DesiredSection(agent_id=agent, section=section) for agent, section in keys], ignore_conflicts=True
    )
    held = list(rows.select_for_update().order_by("agent_id", "section"))
    rows.update(wanted=F("wanted") + 1)
    for row in held:
        _send_on_commit(row.agent_id, row.section)
    return [(str(row.agent_id), row.section, row.wanted + 1) for row in held]


def is_held(agent: UUID | str, section: str, number: int) -> bool:
    """Whether the machine has converged to this number of the section or a later one.

    True for a machine that is gone. Raises Problem when the machine said that it cannot converge to it.
    """
    row = DesiredSection.objects.filter(agent_id=agent, section=section).first()
    if row is None or row.held >= number:
        return True
    failure = row.failure or {}
    if failure.get("number", 0) >= number and failure.get("nature") != "transient":
        raise Problem(failure["detail"], code=failure["code"], nature=failure["nature"], section=section)
    return False


def send(agent: UUID | str, section: str) -> None:
    """Compute the section and tell the machine, when it is behind. Called by workers, outside any transaction."""
    row = DesiredSection.objects.behind().select_related("agent").filter(agent_id=agent, section=section).first()
    compute = _providers.get(section)
    if row is None or compute is None:
        return
    # The number was read before the content: the content holds at least all changes up to that number.
    DesiredSection.objects.filter(pk=row.pk).update(sent_at=Now())
    agents.send_desired(Desired(str(row.agent_id), section, row.wanted, compute(row.agent)))


def note(document: Document) -> None:
    """A machine's word on a section: the number it converged to, or why it could not."""
    held = Held.from_document(document)
    row = DesiredSection.objects.filter(agent_id=held.agent, section=held.section)
    if held.failure is None:
        row.filter(wanted__gte=held.number).update(held=Greatest(F("held"), held.number), failure=None)
    else:
        row.filter(held__lt=held.number).update(failure={**held.failure.to_document(), "number": held.number})
    engine.wake_desired(held.agent, held.section)


def settle(agent: Agent, held: dict[str, int], *, is_hello: bool = False) -> None:
    """Take over the numbers a machine says it holds; after its hello also those that went back. Wakes and sends.

    A number that was never wanted is of another life of the database: the section counts on from it.
    """
    for row in DesiredSection.objects.filter(agent=agent):
        said = int(held.get(row.section, 0))
        if said > row.wanted:
            row.wanted, row.held = said + 1, 0
            DesiredSection.objects.filter(pk=row.pk).update(wanted=said + 1, held=0)
        elif is_hello or said > row.held:
            DesiredSection.objects.filter(pk=row.pk).update(held=said, failure=None)
            row.held = said
            _wake_on_commit(agent.pk, row.section)
        if is_hello and row.held < row.wanted:
            _send_on_commit(agent.pk, row.section)


def sweep() -> None:
    """Send again what is behind for a while on connected machines, unless their heartbeat says they hold it."""
    late = Q(sent_at=None) | Q(sent_at__lt=Now() - timedelta(seconds=SEND_AGAIN_AFTER_S))
    behind = DesiredSection.objects.behind().filter(late, agent__in=Agent.objects.connected())
    for machine in Agent.objects.filter(pk__in=behind.values("agent_id")):
        heartbeat = agents.heartbeat(machine.pk) or {}
        settle(machine, heartbeat.get("held", {}))
        for section in behind.filter(agent=machine).values_list("section", flat=True):
            try:
                send(machine.pk, section)
            except Exception:
                # One section that cannot be computed must not keep the others from their machines.
                log.exception("section %s of agent %s was not sent", section, machine.pk)


def forget(agent: Agent) -> None:
    """Nothing is wanted of this machine any more, in the caller's transaction; who waits for it is woken."""
    for section in DesiredSection.objects.filter(agent=agent).values_list("section", flat=True):
        _wake_on_commit(agent.pk, section)
    DesiredSection.objects.filter(agent=agent).delete()


def _wake_on_commit(agent: UUID, section: str) -> None:
    transaction.on_commit(lambda: engine.wake_desired(agent, section), robust=True)


def _send_on_commit(agent: UUID, section: str) -> None:
    transaction.on_commit(lambda: _send_soon(agent, section), robust=True)


def _send_soon(agent: UUID, section: str) -> None:
    """Have a worker send the section in 200 ms; more changes until then go with it."""
    key = f"mica:desired:{agent}:{section}"
    if agents.redis().set(key, 1, nx=True, px=int(COALESCE_S * 1000)):
        message = {"agent": str(agent), "section": section}
        app.send_task("infra.send_desired", kwargs=message, countdown=COALESCE_S, ignore_result=True)
