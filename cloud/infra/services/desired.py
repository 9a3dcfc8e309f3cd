"""The state that machines should have, in numbered sections: wanted here, computed when sent, held there.

An app registers who computes a section; whoever changes what it is computed from touches it, in the same transaction.
Changes within 200 ms go out together. What is lost on the way is sent again by the sweep and on an agent's hello.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.celery import app
from cloud.common.errors import Problem
from cloud.common.wire import Desired, Document, Held
from cloud.infra import freshness
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
    """As `touch`, for several machines at once."""
    return touch_each((machine, section) for machine in machines for section in sections)


def touch_each(changed: Iterable[tuple[Agent, str]]) -> list[Wanted]:
    """As `touch`, for different sections of several machines.

    The rows are taken in the order of uuid and section, those that are there before those that are made here, so that
    two callers never wait for each other in a ring: whoever touches twice in one transaction gives that away.
    """
    keys = sorted({(machine.pk, section) for machine, section in changed})
    if not keys:
        return []
    touched = _count_up(keys)
    if new := sorted(set(keys) - {(agent, section) for agent, section, _wanted in touched}):
        DesiredSection.objects.bulk_create(
            [DesiredSection(agent_id=agent, section=section) for agent, section in new], ignore_conflicts=True
        )
        touched += _count_up(new)
    for agent, section, _wanted in touched:
        _send_on_commit(agent, section)
    return [(str(agent), section, wanted) for agent, section, wanted in sorted(touched)]


_COUNT_UP = """
WITH held AS MATERIALIZED (
    SELECT row.id FROM infra_desiredsection row
    JOIN unnest(%(agents)s::uuid[], %(sections)s::text[]) AS key(agent_id, section) USING (agent_id, section)
    ORDER BY row.agent_id, row.section FOR NO KEY UPDATE OF row
)
UPDATE infra_desiredsection row SET wanted = wanted + 1,
    behind_since = CASE WHEN row.held < row.wanted THEN row.behind_since ELSE now() END
FROM held WHERE row.id = held.id
RETURNING row.agent_id, row.section, row.wanted
"""


def _count_up(keys: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str, int]]:
    with connection.cursor() as cursor:
        arguments = {"agents": [str(agent) for agent, _section in keys], "sections": [section for _a, section in keys]}
        cursor.execute(_COUNT_UP, arguments)
        return list(cursor.fetchall())


def is_held(agent: UUID | str, section: str, number: int) -> bool:
    """Whether the machine has converged to this number of the section or a later one.

    True for a machine that is gone. Raises Problem when the machine said that it cannot converge to it. Parts of it may
    fail though it is held (`failing`): that concerns those who need them.
    """
    row = DesiredSection.objects.filter(agent_id=agent, section=section).first()
    if row is None or row.held >= number:
        return True
    failure = row.failure or {}
    if failure.get("number", 0) >= number and failure.get("nature") != "transient":
        raise Problem(failure["detail"], code=failure["code"], nature=failure["nature"], section=section)
    return False


def is_converged(agent: UUID | str, section: str, number: int) -> bool:
    """Whether the machine has done with this number, well or not: it holds it, or said why it cannot."""
    try:
        return is_held(agent, section, number)
    except Problem:
        return True


def failing(machines: Iterable[UUID] | None, *sections: str) -> dict[UUID, dict[str, Document]]:
    """What fails on machines, of these sections: {agent uuid: {part: {nature, code, detail}}}, by what names the part.

    A section that fails as a whole (all sections of older agents do) is under its own name. One query; None for all
    machines.
    """
    rows = DesiredSection.objects.filter(section__in=sections).filter(~Q(failures={}) | Q(failure__isnull=False))
    if machines is not None:
        rows = rows.filter(agent__in=list(machines))
    found: dict[UUID, dict[str, Document]] = defaultdict(dict)
    for row in rows.order_by("section"):
        found[row.agent_id] |= row.failures
        if row.failure:
            found[row.agent_id][row.section] = row.failure
    return found


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
    """A machine's word on a section: the number it converged to and what of it fails, or why it could not.

    A word that is too old, or that a later one has overtaken, changes nothing.
    """
    held = Held.from_document(document)
    if freshness.is_stale(held.at):
        log.warning("agent %s held %s %d too long ago", held.agent, held.section, held.number)
        return
    row = DesiredSection.objects.filter(agent_id=held.agent, section=held.section)
    if held.at:
        # No word is older than this here: one that seems to come from further ahead tells of a clock set back.
        row = row.exclude(told_at__gt=held.at, told_at__lt=held.at + freshness.OLDEST_S)
    told: Document = {"told_at": held.at} if held.at else {}
    if held.failure is None:
        parts = {name: each.to_document() for name, each in held.failures.items()}
        row.filter(wanted__gte=held.number, held__lte=held.number).update(
            held=held.number, failure=None, failures=parts, **told
        )
    else:
        failure = {**held.failure.to_document(), "number": held.number}
        row.filter(held__lt=held.number).update(failure=failure, **told)
    engine.wake_desired(held.agent, held.section)


def settle(
    agent: Agent, held: dict[str, int], failures: dict[str, Document] | None = None, *, is_hello: bool = False
) -> None:
    """Take over the numbers a machine says it holds; after its hello also those that went back. Wakes and sends.

    `failures` are the parts that fail, by section; of a section that is not in there nothing new is known. A number
    that was never wanted is of another life of the database: the section counts on from it.
    """
    for row in DesiredSection.objects.filter(agent=agent).order_by("section"):
        said = int(held.get(row.section, 0))
        parts = (failures or {}).get(row.section, row.failures if said == row.held else {})
        if said > row.wanted:
            row.wanted, row.held = said + 1, 0
            DesiredSection.objects.filter(pk=row.pk).update(wanted=said + 1, held=0, failures={}, behind_since=Now())
        elif is_hello or said > row.held or (said == row.held and parts != row.failures):
            since = {"behind_since": Now()} if said < row.held else {}
            DesiredSection.objects.filter(pk=row.pk).update(held=said, failure=None, failures=parts, **since)
            row.held = said
            _wake_on_commit(agent.pk, row.section)
        if is_hello and row.held < row.wanted:
            _send_on_commit(agent.pk, row.section)


def sweep() -> None:
    """Send again what is behind for a while on connected machines, unless their heartbeat says they hold it.

    The heartbeats also tell of parts that fail no more, where that word was lost.
    """
    late = Q(sent_at=None) | Q(sent_at__lt=Now() - timedelta(seconds=SEND_AGAIN_AFTER_S))
    behind = DesiredSection.objects.behind().filter(late, agent__in=Agent.objects.connected())
    in_part = DesiredSection.objects.exclude(failures={}).filter(agent__in=Agent.objects.connected())
    for machine in Agent.objects.filter(Q(pk__in=behind.values("agent_id")) | Q(pk__in=in_part.values("agent_id"))):
        heartbeat = agents.heartbeat(machine.pk) or {}
        settle(machine, heartbeat.get("held", {}), heartbeat.get("failures"))
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
