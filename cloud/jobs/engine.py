"""The job engine: takes a job by lease, runs or undoes its steps one by one, and lets go when it must wait.

Cursor, context and the rows a step changes commit together. Whatever is lost on the way (a process, a message, the
broker) is made good by `cloud.jobs.sweep`, which calls `advance` again: every entry here may be called twice.
"""

import enum
import logging
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.common.errors import Problem
from cloud.common.wire import Document, storable
from cloud.events.services import audit
from cloud.jobs import agents, failures, leases
from cloud.jobs.commands import Commanding
from cloud.jobs.kick import kick
from cloud.jobs.leases import database_now
from cloud.jobs.models import Job, JobResource, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS, AgentStep, Context, Step, WaitStep

log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    NEXT = "next"
    WAITING = "waiting"
    ENDED = "ended"
    LOST = "lost"


def advance(uuid: UUID, queue: str = "control") -> None:
    """Take the job and go on with it until it waits, ends, or belongs on another queue."""
    owner = secrets.token_hex(8)
    if not leases.take(uuid, owner):
        return
    while (outcome := _turn(uuid, owner, queue)) is Outcome.NEXT:
        continue
    log.debug("job %s: %s", uuid, outcome.value)


def answer(document: Document) -> None:
    """An agent's answer: kept with the job that waits for this key, and the job goes on. Any other is ignored."""
    key = document["key"]
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=key.partition(":")[0], finished_at=None).first()
        if job is None or key not in job.waiting or "answer" in job.waiting[key]:
            return
        if job.waiting[key].get("agent") != document.get("agent"):
            log.warning("job %s: %s answers for another agent", job.uuid, document.get("agent"))
            return
        job.waiting[key]["answer"] = storable(document)
        job.save(update_fields=["waiting"])
    advance(job.uuid)


def wake(topic: str) -> None:
    """Look again at every job that waits for this topic."""
    for uuid in Job.objects.live().filter(waiting__has_key=topic).values_list("uuid", flat=True):
        kick(uuid)


def wake_desired(agent: UUID | str, section: str) -> None:
    wake(f"desired:{agent}:{section}")


def _turn(uuid: UUID, owner: str, queue: str) -> Outcome:
    """One step, in one transaction. An error of the step is settled in a second transaction."""
    try:
        prepared = _prepare(uuid, owner, queue)
        if isinstance(prepared, Outcome):
            return prepared
        with transaction.atomic():
            job = Job.objects.select_for_update().filter(pk=uuid, lease_owner=owner, finished_at=None).first()
            if job is None:
                return Outcome.LOST
            turn = Turn(job)
            outcome = turn.undo() if turn.is_undoing else turn.run()
            job.save()
            return outcome
    except (OperationalError, InterfaceError):
        # The database went away or broke a deadlock: nothing was committed, the lease runs out, the sweep tries again.
        log.exception("job %s: the database failed", uuid)
        return Outcome.LOST
    except Exception as error:
        if not isinstance(error, Problem):
            log.exception("job %s: a step failed", uuid)
        return _settle_failure(uuid, owner, error)


def _prepare(uuid: UUID, owner: str, queue: str) -> Outcome | None:
    """Before the step's transaction: hand the job to the queue its step wants, run what may be slow."""
    job = Job.objects.filter(pk=uuid, lease_owner=owner, finished_at=None).first()
    if job is None:
        return Outcome.LOST
    turn = Turn(job)
    step = turn.step
    if step is None or job.waiting:
        return None
    if step.queue != queue:
        leases.release(uuid, owner)
        kick(uuid, step.queue)
        return Outcome.LOST
    is_given_up = job.is_cancelled and not turn.is_undoing
    if step.is_slow and not is_given_up and step.applies(turn.ctx):
        context = dict(job.context)
        if not turn.is_undoing:
            turn.show_running()
        with leases.held_open(uuid, owner):
            step.undo(turn.ctx) if turn.is_undoing else step.run(turn.ctx)
        if job.context != context:
            Job.objects.filter(pk=uuid, lease_owner=owner).update(context=job.context)
    return None


def _settle_failure(uuid: UUID, owner: str, error: Exception) -> Outcome:
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=uuid, lease_owner=owner, finished_at=None).first()
        if job is None:
            return Outcome.LOST
        turn = Turn(job)
        outcome = turn.undo_failed(error) if turn.is_undoing else turn.failed(error)
        job.save()
        return outcome


class Turn(Commanding):
    """One look at a job under its row lock: what its cursor says is done next. Changes the row, saves nothing."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.workflow = WORKFLOWS[job.workflow]()
        self.ctx = Context(job)
        inside = 0 <= job.cursor < len(self.workflow.steps)
        self.step: Step | None = self.workflow.steps[job.cursor]() if inside else None

    @property
    def is_undoing(self) -> bool:
        return self.job.state == JobState.UNDOING

    # forward

    def run(self) -> Outcome:
        job, step = self.job, self.step
        if job.is_cancelled and not self.asked:
            return self._begin_undo(failures.cancelled())
        if step is None:
            return self._end(JobState.SUCCEEDED)
        if job.state == JobState.QUEUED:
            job.state = JobState.RUNNING
        job.started_at = job.started_at or database_now()
        if not job.waiting and not step.applies(self.ctx):
            return self._passed("skipped")
        self._mark("running")
        if isinstance(step, AgentStep):
            return self._run_command(step)
        if isinstance(step, WaitStep):
            return self._run_wait(step)
        if not step.is_slow:
            step.run(self.ctx)
        return self._passed("succeeded")

    def _run_wait(self, step: WaitStep) -> Outcome:
        if step.is_met(self.ctx):
            return self._passed("succeeded")
        self._expect_in_time(step)
        if not self.job.waiting:
            self.job.step_deadline_at = database_now() + timedelta(seconds=step.deadline)
        self.job.waiting = {topic: {} for topic in step.topics(self.ctx)} or {"pause": {}}
        return self._let_go()

    def _passed(self, state: str) -> Outcome:
        self._mark(state)
        job = self.job
        job.cursor += 1
        job.attempt, job.waiting, job.step_deadline_at = 1, {}, None
        weights = [step.weight for step in self.workflow.steps]
        job.percent = round(100 * sum(weights[: job.cursor]) / (sum(weights) or 1), 1)
        return self._go_on()

    def failed(self, error: Exception) -> Outcome:
        """The step at the cursor failed: turn round, undoing that step too."""
        return self._begin_undo(failures.document(error))

    def _begin_undo(self, error: Document) -> Outcome:
        job = self.job
        keys = [key for key, held in job.waiting.items() if "agent" in held and "answer" not in held]
        transaction.on_commit(lambda: agents.abort(keys), robust=True)
        self._mark("failed", error)
        job.error = failures.cancelled() if job.is_cancelled else error
        job.state, job.attempt, job.waiting, job.step_deadline_at = JobState.UNDOING, 1, {}, None
        # What the service booked when it opened the job is given back also by a job that never came to that step.
        booked = [position for position, step in enumerate(self.workflow.steps) if step.releases]
        job.cursor = min(max([job.cursor, *booked]), len(self.workflow.steps) - 1)
        return self._go_on()

    # backward

    def undo(self) -> Outcome:
        step = self.step
        if step is None:
            ended = JobState.CANCELLED if self.job.is_cancelled else JobState.FAILED
            return self._end(JobState.STUCK if self.ctx.is_stuck else ended)
        if step.releases and self.ctx.is_stuck:
            return self._undone("kept")
        if not self.job.waiting and not step.applies(self.ctx):
            return self._undone(None)
        if isinstance(step, AgentStep):
            return self._undo_command(step)
        if not step.is_slow:
            step.undo(self.ctx)
        return self._undone("undone")

    def _undone(self, state: str | None) -> Outcome:
        if state:
            self._mark(state)
        self.job.cursor -= 1
        self.job.attempt, self.job.waiting, self.job.step_deadline_at = 1, {}, None
        return self._go_on()

    def undo_failed(self, error: Exception) -> Outcome:
        """An undo that failed does not stop the others; the job ends as stuck, for a person to look at."""
        if self.step is None:  # the workflow's last word failed: nothing is left to be asked again
            return self._close(JobState.STUCK)
        self._mark("undo_failed", failures.document(error))
        self.job.cursor -= 1
        self.job.attempt, self.job.waiting = 1, {}
        return self._go_on()

    # both

    def _expect_in_time(self, step: Step) -> None:
        deadline = self.job.step_deadline_at
        if deadline and deadline < database_now():
            raise failures.timed_out(step)

    def show_running(self) -> None:
        """Let the job be seen at work before a slow step begins; the turn that follows it does the rest."""
        Job.objects.filter(pk=self.job.pk, state=JobState.QUEUED).update(state=JobState.RUNNING, started_at=Now())
        self._mark("running")

    def _mark(self, state: str, error: Document | None = None) -> None:
        changes: dict[str, Any] = {"state": state}
        if state == "running":
            changes["started_at"] = Now()
            unchanged = Q(state="running")
        else:
            changes["finished_at"] = Now()
            unchanged = Q(state=state)
        if error:
            changes["error"] = error
        JobStep.objects.filter(job=self.job, position=self.job.cursor).exclude(unchanged).update(**changes)

    def _go_on(self) -> Outcome:
        self.job.lease_until = database_now() + timedelta(seconds=settings.MICA["lease_s"])
        return Outcome.NEXT

    def _let_go(self) -> Outcome:
        self.job.lease_until, self.job.lease_owner = None, ""
        return Outcome.WAITING

    def _end(self, state: JobState) -> Outcome:
        self._clear_activities()
        self.workflow.succeeded(self.ctx) if state == JobState.SUCCEEDED else self.workflow.failed(self.ctx)
        return self._close(state)

    def _clear_activities(self) -> None:
        for held in JobResource.objects.filter(job=self.job, is_held=True):
            model = apps.get_model(held.resource_type)
            if any(field.name == "activity" for field in model._meta.fields):
                model._default_manager.filter(pk=held.resource_uuid).update(activity="")

    def _close(self, state: JobState) -> Outcome:
        job = self.job
        self._clear_activities()
        JobResource.objects.filter(job=job, is_held=True).update(is_held=False)
        job.state, job.finished_at, job.waiting = state, database_now(), {}
        if state == JobState.SUCCEEDED:
            job.percent = 100
        self._let_go()
        audit.settle(job.pk, "failed" if state == JobState.STUCK else str(state))
        parent = job.parent_id
        if parent:
            from cloud.jobs import batches

            transaction.on_commit(lambda: batches.settle(parent), robust=True)
        return Outcome.ENDED
