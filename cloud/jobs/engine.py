"""The job engine: takes a job, runs or undoes its steps, and lets go when it must wait.

Cursor, context and the rows that steps change commit together. Whatever is lost on the way (a process, a message, the
broker) is made good by `cloud.jobs.sweep`, which calls `advance` again: every entry here may be called twice.
"""

import logging
import secrets
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction
from django.db.models.functions import Now

from cloud.common.errors import Problem
from cloud.common.wire import Document, storable
from cloud.jobs import cleaning, leases
from cloud.jobs.kick import kick
from cloud.jobs.models import Job, JobState
from cloud.jobs.turn import Outcome, Turn

log = logging.getLogger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError)
# Steps of rows that follow each other are done in one transaction, so many at most: locks are not held for long.
STEPS_A_TURN = 12


def advance(uuid: UUID, queue: str = "control") -> None:
    """Go on with the job until it waits, ends, or belongs on another queue; if nobody else has it."""
    _go_on(uuid, secrets.token_hex(8), queue)


def _go_on(uuid: UUID, owner: str, queue: str) -> None:
    while (outcome := _turn(uuid, owner, queue)) is Outcome.NEXT:
        continue
    log.debug("job %s: %s", uuid, outcome.value)


def answer(document: Document) -> None:
    """An agent's answer: the job that waits for this key goes on with it. Any other is ignored.

    Keeping the answer and what follows from it are one transaction; only when that fails, the answer is kept alone.
    """
    key = str(document["key"])
    uuid, owner = UUID(key.partition(":")[0]), secrets.token_hex(8)
    try:
        outcome = _take_answer(uuid, owner, key, document, is_kept_only=False)
    except Exception:
        log.info("job %s: what follows from an answer failed; it is kept, and tried again by itself", uuid)
        outcome = _take_answer(uuid, owner, key, document, is_kept_only=True)
    if outcome is None:
        cleaning.answer(document)
    elif outcome in (Outcome.NEXT, Outcome.SLOW):
        _go_on(uuid, owner, "control")


def _take_answer(uuid: UUID, owner: str, key: str, document: Document, *, is_kept_only: bool) -> Outcome | None:
    with transaction.atomic():
        job = leases.locked(uuid, owner)
        if job is None or key not in job.waiting or "answer" in job.waiting[key]:
            return None
        if job.waiting[key].get("agent") != document.get("agent"):
            log.warning("job %s: %s answers for another agent", job.uuid, document.get("agent"))
            return Outcome.LOST
        turn = Turn(job)
        job.waiting = {**job.waiting, key: {**job.waiting[key], "answer": storable(document)}}
        outcome = Outcome.NEXT if is_kept_only else _steps(turn, owner, "control")
        turn.save()
        return outcome


def wake(topic: str) -> None:
    """Look again at every job that waits for this topic."""
    for uuid in Job.objects.live().filter(waiting__has_key=topic).values_list("uuid", flat=True):
        kick(uuid)


def wake_desired(agent: UUID | str, section: str) -> None:
    wake(f"desired:{agent}:{section}")


class NotAlone(Exception):
    """A step failed after others in the same transaction; these are done again first, each in its own."""


def _turn(uuid: UUID, owner: str, queue: str) -> Outcome:
    """Some steps, in one transaction. The failure of a step is settled in a second one."""
    prepared, most = None, STEPS_A_TURN
    while True:
        try:
            outcome = _transact(uuid, owner, queue, most, prepared)
            if outcome is not Outcome.SLOW:
                return outcome
            prepared = _prepare(uuid, owner, queue)
            if prepared is None:
                return Outcome.LOST
        except DATABASE_AWAY:
            # The database went away or broke a deadlock: nothing was committed, the sweep tries again.
            log.exception("job %s: the database failed", uuid)
            return Outcome.LOST
        except NotAlone:
            most = 1
        except Exception as error:
            if not isinstance(error, Problem):
                log.exception("job %s: a step failed", uuid)
            return _settle_failure(uuid, owner, error)


@transaction.atomic
def _transact(uuid: UUID, owner: str, queue: str, most: int, prepared: int | None) -> Outcome:
    job = leases.locked(uuid, owner)
    if job is None:
        return Outcome.LOST
    turn = Turn(job)
    outcome = _steps(turn, owner, queue, most=most, prepared=prepared)
    turn.save()
    return outcome


def _steps(turn: Turn, owner: str, queue: str, *, most: int = 0, prepared: int | None = None) -> Outcome:
    """Forward as many steps as may go together, backward one."""
    for number in range(most or STEPS_A_TURN):
        if turn.job.cursor != prepared and _is_slow(turn, queue):
            turn.hold(owner)
            return Outcome.NEXT if number else Outcome.SLOW
        try:
            outcome = turn.go_on()
        except DATABASE_AWAY:
            raise
        except Exception as error:
            if number:
                raise NotAlone from error
            raise
        if outcome is not Outcome.NEXT:
            return outcome
        if turn.is_undoing:
            break
    turn.hold(owner)
    return Outcome.NEXT


def _is_slow(turn: Turn, queue: str) -> bool:
    """Whether the step at the cursor is not for this transaction: it is slow, or another queue's."""
    job, step = turn.job, turn.step
    if step is None or job.waiting:
        return False
    is_given_up = job.is_cancelled and not turn.is_undoing
    return step.queue != queue or (step.is_slow and not is_given_up and step.applies(turn.ctx))


def _prepare(uuid: UUID, owner: str, queue: str) -> int | None:
    """Outside any transaction: hand the job to the queue its step wants, or run the slow step, and say which it was."""
    job = Job.objects.filter(pk=uuid, lease_owner=owner, finished_at=None).first()
    if job is None:
        return None
    turn = Turn(job)
    step = turn.step
    if step is None or step.queue != queue:
        leases.release(uuid, owner)
        kick(uuid, step.queue if step else "control")
        return None
    context = dict(job.context)
    if not turn.is_undoing:
        _show_running(turn)
    with leases.held_open(uuid, owner):
        step.undo(turn.ctx) if turn.is_undoing else step.run(turn.ctx)
    if job.context != context:
        Job.objects.filter(pk=uuid, lease_owner=owner).update(context=job.context)
    return int(job.cursor)


def _show_running(turn: Turn) -> None:
    """Let the job be seen at work before a slow step begins; the turn that follows it does the rest."""
    Job.objects.filter(pk=turn.job.pk, state=JobState.QUEUED).update(state=JobState.RUNNING, started_at=Now())
    turn.mark("running")
    turn.marks.write()


def _settle_failure(uuid: UUID, owner: str, error: Exception) -> Outcome:
    with transaction.atomic():
        job = leases.locked(uuid, owner)
        if job is None:
            return Outcome.LOST
        turn = Turn(job)
        outcome = turn.undo_failed(error) if turn.is_undoing else turn.failed(error)
        if outcome is Outcome.NEXT:
            turn.hold(owner)
        turn.save()
        return outcome
