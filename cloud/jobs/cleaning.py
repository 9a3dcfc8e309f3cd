"""Paying what ended jobs owe: each owed undo is asked of its machine when that is back, and then control gives back.

A job's rows are done from the last step to the first, one machine's strictly one after another; control's own when all
machines are done. Every entry may be called twice and by several processes: each move is made under the job's row lock.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.common.wire import Document, Failure
from cloud.events.services import audit
from cloud.jobs import agents, cleanups, commands, failures, holds, machines
from cloud.jobs.leases import Clock
from cloud.jobs.models import CleanUp, CleanUpState, Job, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS, AgentStep, Context, Step, steps_of

log = logging.getLogger(__name__)


def go_on(uuid: UUID) -> None:
    """Do whatever can be done now of what this ended job owes."""
    while _move(uuid):
        continue


def agent_back(agent: UUID | str) -> None:
    """A machine is there again: ask it for all that it owes."""
    for job in _jobs_owing(agent=agent):
        _carefully(lambda job=job: go_on(job), f"job {job}")  # type: ignore[misc]


def drop(agent: UUID | str) -> None:
    """The machine is gone for good, and with it what was on it: what it owed counts as done, and control gives back."""
    for job in _jobs_owing(agent=agent):
        with transaction.atomic():
            locked = _locked(job)
            for row in _owed(locked) if locked else []:
                if str(row.agent) == str(agent):
                    _gone(locked, row)  # type: ignore[arg-type]
        go_on(job)


def answer(document: Document) -> bool:
    """A machine's answer to an owed undo; whether it was one. Any other, and a second one, is left alone."""
    uuid, _colon, rest = str(document["key"]).partition(":")
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=uuid).first()
        row = next((row for row in _owed(job) if _key(job, row) == f"{uuid}:{rest}"), None) if job else None
        if job is None or row is None or str(row.agent) != document.get("agent"):
            return False
        failure = Failure.from_document(document["failure"]) if document.get("failure") else None
        if failure is None or failure.nature == "not_found":
            step, ctx = _step(job, row), Context(job)
            _try(job, row, lambda: step.undo_answered(ctx, document.get("body") or {}))  # type: ignore[attr-defined]
        elif failure.nature == "transient":
            row.attempt += 1
            row.sent_at, row.due_at = None, Clock().after(commands.pause_s(row.attempt))
            row.save(update_fields=["attempt", "sent_at", "due_at"])
        else:
            _failed(job, row, failures.of_agent(failure))
        is_ended = job.finished_at is not None
        _finish_if_paid(job)
    if is_ended:
        go_on(job.pk)
    return True


def sweep() -> None:
    """Ask again what was lost, and go on with what a process that died left behind. Run every two seconds."""
    owing = CleanUp.objects.owed().exclude(agent=None).values_list("agent", flat=True)
    for agent in map(str, owing.order_by().distinct()):
        if machines.find(agent) is None:
            _carefully(lambda agent=agent: drop(agent), f"agent {agent}")  # type: ignore[misc]
        elif agents.is_alive(agent):
            agent_back(agent)
    waiting = CleanUp.objects.owed().exclude(agent=None).values("job")
    left = CleanUp.objects.owed().filter(job__finished_at__isnull=False).exclude(job__in=waiting)
    for job in left.values_list("job", flat=True).order_by().distinct():
        _carefully(lambda job=job: go_on(job), f"job {job}")  # type: ignore[misc]


def _carefully(act: Callable[[], None], what: str) -> None:
    try:
        act()
    except Exception:
        log.exception("%s: cleaning up goes on with the others", what)


def _jobs_owing(agent: UUID | str) -> list[UUID]:
    due = Q(due_at=None) | Q(due_at__lte=Now())
    rows = CleanUp.objects.owed().filter(due, agent=agent, job__finished_at__isnull=False)
    return list(rows.order_by("job__sequence").values_list("job", flat=True).distinct())


def _locked(uuid: UUID) -> Job | None:
    return Job.objects.select_for_update().filter(pk=uuid, finished_at__isnull=False).first()


def _owed(job: Job) -> list[CleanUp]:
    return list(job.clean_ups.owed().order_by("-position"))  # type: ignore[attr-defined]


def _step(job: Job, row: CleanUp) -> Step:
    return steps_of(job)[row.position]()


def _key(job: Job, row: CleanUp) -> str:
    return commands.key_of(job, row.position, "undo", row.attempt)


@transaction.atomic
def _move(uuid: UUID) -> bool:
    """One move with an ended job; whether there may be another at once."""
    job = _locked(uuid)
    if job is None:
        return False
    rows = _owed(job)
    first_of_each = {row.agent: row for row in reversed(rows) if row.agent is not None}
    if first_of_each:
        settled = [_ask(job, row) for row in first_of_each.values()]  # all of them: one that is away holds no other up
        return any(settled)
    if not rows:
        return False
    row, ctx = rows[0], Context(job)
    step = _step(job, row)
    if ctx.is_stuck:
        # What could not be taken back may still be in use: what it uses goes to nobody else.
        _settle(job, row, CleanUpState.FAILED, "kept", failures.document(_kept()))
    elif not step.applies(ctx):
        _settle(job, row, CleanUpState.DONE, "undone")
    else:
        _try(job, row, lambda: step.undo(ctx))
    _finish_if_paid(job)
    return len(rows) > 1


def _ask(job: Job, row: CleanUp) -> bool:
    """Ask the machine for its next owed undo, if it is there and was not asked just now. Whether the row is settled."""
    agent = row.agent
    assert agent is not None
    if machines.find(agent) is None:
        _gone(job, row)
        _finish_if_paid(job)
        return True
    now, key = Clock().now(), _key(job, row)
    in_work = commands.is_in_work(agent, key)
    if in_work is None or (row.due_at and row.due_at > now):
        return False
    if row.sent_at and (in_work or now - row.sent_at < timedelta(seconds=settings.MICA["resend_after_s"])):
        return False
    step, ctx = _step(job, row), Context(job)
    try:
        if not isinstance(step, AgentStep):
            step.undo(ctx)  # a step that this release does not know says so
        message = step.undo_ask(ctx) if isinstance(step, AgentStep) else None
    except Problem as problem:
        _failed(job, row, problem)
        _finish_if_paid(job)
        return True
    if message is None:
        _settle(job, row, CleanUpState.DONE, "undone")
        _finish_if_paid(job)
        return True
    row.sent_at = now
    row.save(update_fields=["sent_at"])
    deadline = time.time() + agents.EXPIRES_AT_MOST_S
    command = commands.made(job, row.position, "undo", row.attempt, message, deadline)
    is_bulk = isinstance(step, AgentStep) and step.is_bulk
    transaction.on_commit(lambda: agents.send_command(agent, command, is_bulk=is_bulk), robust=True)
    return False


def _try(job: Job, row: CleanUp, act: Callable[[], Any]) -> None:
    """Do it; an error of the step's own is the row's, one of the database means that all of this is tried again."""
    try:
        with transaction.atomic():
            act()
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if not isinstance(error, Problem):
            log.exception("job %s: a clean-up failed", job.pk)
        _failed(job, row, error)
    else:
        _settle(job, row, CleanUpState.DONE, "undone")


def _gone(job: Job, row: CleanUp) -> None:
    reason = Problem(
        filled(_("%(machine)s was taken out of the cloud, and what was on it with it."), machine=row.machine),
        code="machine_gone",
    )
    _settle(job, row, CleanUpState.DONE, "undone", failures.document(reason))


def _kept() -> Problem:
    return Problem(_("Kept, because what uses it could not be taken back."), code="kept")


def _failed(job: Job, row: CleanUp, error: Exception) -> None:
    """The machine could not: that is for a person to look at, and holds nobody else up."""
    _settle(job, row, CleanUpState.FAILED, "undo_failed", failures.document(error))
    if job.finished_at and job.state != JobState.STUCK:
        job.state = JobState.STUCK
        job.save(update_fields=["state"])


def _settle(job: Job, row: CleanUp, state: CleanUpState, step_state: str, error: Document | None = None) -> None:
    CleanUp.objects.filter(pk=row.pk).update(state=state, error=error, done_at=Now())
    changes: dict[str, Any] = {"state": step_state, "finished_at": Now()}
    if error and state == CleanUpState.FAILED:
        changes["error"] = error
    JobStep.objects.filter(job=job, position=row.position).update(**changes)
    cleanups.woken_on_commit(row.agent)


def _finish_if_paid(job: Job) -> None:
    """The workflow's last word, once an ended job owes nothing: its resources are free from here on."""
    if job.finished_at is None or cleanups.owed_by(job):
        return
    holds.free(job)
    try:
        with transaction.atomic():
            WORKFLOWS[job.workflow]().failed(Context(job))
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("job %s: its last word failed", job.pk)
        Job.objects.filter(pk=job.pk).update(state=JobState.STUCK)
    audit.settle(job.pk, "failed" if job.state == JobState.STUCK else str(job.state))
