"""One look at a job under its row lock: what its cursor says is done next. Changes the row, and saves it at the end."""

import copy
import enum

from django.conf import settings
from django.db import transaction

from cloud.common.wire import Document
from cloud.events.services import audit
from cloud.jobs import agents, cleaning, cleanups, failures, holds, leases
from cloud.jobs.commands import Commanding
from cloud.jobs.marks import Marks
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import WORKFLOWS, AgentStep, Context, Step, WaitStep, steps_of

SAVED = (
    *("state", "cursor", "attempt", "context", "waiting", "step_deadline_at", "look_at", "lease_until", "lease_owner"),
    *("percent", "error", "started_at", "finished_at"),
)


class Outcome(enum.Enum):
    NEXT = "next"
    SLOW = "slow"
    WAITING = "waiting"
    ENDED = "ended"
    LOST = "lost"


class Turn(Commanding):
    """The job's steps are those of its plan (`workflow.steps_of`). Nothing is written before `save`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.clock = leases.Clock(getattr(job, "read_at", None))
        self.workflow = WORKFLOWS[job.workflow]()
        self.steps = steps_of(job)
        self.ctx = Context(job)
        self.marks = Marks(job.pk)
        self._before = {name: copy.deepcopy(getattr(job, name)) for name in SAVED}

    @property
    def step(self) -> Step | None:
        """The step at the cursor; None past either end."""
        return self.steps[self.job.cursor]() if 0 <= self.job.cursor < len(self.steps) else None

    @property
    def is_undoing(self) -> bool:
        return self.job.state == JobState.UNDOING

    def go_on(self) -> Outcome:
        """Run or undo the step at the cursor, or end the job."""
        return self._undo() if self.is_undoing else self._run()

    def save(self) -> None:
        """Write what has changed of the row and of its steps."""
        changed = {name: getattr(self.job, name) for name in SAVED if getattr(self.job, name) != self._before[name]}
        if changed:
            Job.objects.filter(pk=self.job.pk).update(**changed)
        self.marks.write()

    # forward

    def _run(self) -> Outcome:
        job, step = self.job, self.step
        if job.is_cancelled and not self.asked:
            return self._begin_undo(failures.cancelled())
        if step is None:
            return self._end(JobState.SUCCEEDED)
        if job.state == JobState.QUEUED:
            job.state = JobState.RUNNING
        job.started_at = job.started_at or self.clock.now()
        if not job.waiting:
            if not step.applies(self.ctx):
                return self._passed("skipped")
            self.mark("running")
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
        if self.job.step_deadline_at is None:
            self.job.step_deadline_at = self.clock.after(step.deadline)
        return self._wait_for(*step.topics(self.ctx), since_s=self._waited_s(step))

    def _waited_s(self, step: Step) -> float:
        assert self.job.step_deadline_at is not None
        return step.deadline - (self.job.step_deadline_at - self.clock.now()).total_seconds()

    def _wait_for(self, *topics: str, since_s: float = 0.0) -> Outcome:
        """Wait to be woken. What was missed is seen by a look that comes soon at first, and seldom later."""
        self.job.waiting = {topic: {} for topic in topics} or {"pause": {}}
        return self._let_go(min(max(since_s, min(leases.LOOK_FIRST_S, leases.LOOK_AFTER_S)), 2 * leases.LOOK_AFTER_S))

    def _passed(self, state: str) -> Outcome:
        self.mark(state)
        job = self.job
        job.cursor += 1
        job.attempt, job.waiting, job.step_deadline_at = 1, {}, None
        weights = [step.weight for step in self.steps]
        job.percent = round(100 * sum(weights[: job.cursor]) / (sum(weights) or 1), 1)
        return Outcome.NEXT

    def failed(self, error: Exception) -> Outcome:
        """The step at the cursor failed: turn round, undoing that step too."""
        return self._begin_undo(failures.document(error))

    def _begin_undo(self, error: Document) -> Outcome:
        job = self.job
        keys = {key: held["agent"] for key, held in job.waiting.items() if "agent" in held and "answer" not in held}
        if keys:
            transaction.on_commit(lambda: agents.abort(keys), robust=True)
        self.mark("failed", error)
        job.error = failures.cancelled() if job.is_cancelled else error
        job.state, job.attempt, job.waiting, job.step_deadline_at = JobState.UNDOING, 1, {}, None
        # What the service booked when it opened the job is given back also by a job that never came to that step.
        booked = [position for position, step in enumerate(self.steps) if step.releases]
        job.cursor = min(max([job.cursor, *booked]), len(self.steps) - 1)
        return Outcome.NEXT

    # backward

    def _undo(self) -> Outcome:
        self.marks.write()  # undo and last words look at them
        step = self.step
        if step is None:
            ended = JobState.CANCELLED if self.job.is_cancelled else JobState.FAILED
            return self._end(JobState.STUCK if self.ctx.is_stuck else ended)
        if step.releases and cleanups.owed_by(self.job):
            cleanups.owe(self.job, self.job.cursor, step, agent=None)
            return self._undone("owed")
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
            self.mark(state)
        self.job.cursor -= 1
        self.job.attempt, self.job.waiting, self.job.step_deadline_at = 1, {}, None
        return Outcome.NEXT

    def undo_failed(self, error: Exception) -> Outcome:
        """An undo that failed does not stop the others; the job ends as stuck, for a person to look at."""
        if self.step is None:  # the workflow's last word failed: nothing is left to be asked again
            holds.free(self.job)
            return self._finish(JobState.STUCK)
        self.mark("undo_failed", failures.document(error))
        return self._undone(None)

    # both

    def _expect_in_time(self, step: Step) -> None:
        deadline = self.job.step_deadline_at
        if deadline and deadline < self.clock.now():
            raise failures.timed_out(step, is_unknown=self._is_unknown(step))

    def mark(self, state: str, error: Document | None = None) -> None:
        self.marks.set(self.job.cursor, state, error)

    def hold(self, owner: str) -> None:
        """Keep the job for this worker, which goes on with it at once."""
        self.job.lease_until, self.job.lease_owner = self.clock.after(settings.MICA["lease_s"]), owner

    def _let_go(self, look_in_s: float) -> Outcome:
        self.job.lease_until, self.job.lease_owner = None, ""
        self.job.look_at = self.clock.after(look_in_s)
        return Outcome.WAITING

    def _end(self, state: JobState) -> Outcome:
        if state != JobState.SUCCEEDED and cleanups.owed_by(self.job):
            return self._end_owing(state)
        holds.free(self.job)
        self.workflow.succeeded(self.ctx) if state == JobState.SUCCEEDED else self.workflow.failed(self.ctx)
        return self._finish(state)

    def _end_owing(self, state: JobState) -> Outcome:
        """The job ends; its resources stay locked, and its last word unsaid, until its clean-ups are done."""
        holds.show(self.job, cleanups.ACTIVITY)
        job = self.job
        transaction.on_commit(lambda: cleaning.go_on(job.pk), robust=True)
        return self._finish(state)

    def _finish(self, state: JobState) -> Outcome:
        job = self.job
        job.state, job.finished_at, job.waiting = state, self.clock.now(), {}
        if state == JobState.SUCCEEDED:
            job.percent = 100
        job.lease_until, job.lease_owner = None, ""
        audit.settle(job.pk, "failed" if state == JobState.STUCK else str(state))
        parent = job.parent_id
        if parent:
            from cloud.jobs import batches

            transaction.on_commit(lambda: batches.settle(parent), robust=True)
        return Outcome.ENDED
