"""The part of a turn that speaks with a machine: asks, waits, takes the answer, tries again."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction

from cloud.common.wire import Answer, Command, Message
from cloud.jobs import agents, failures
from cloud.jobs.leases import database_now
from cloud.jobs.models import Job
from cloud.jobs.workflow import AgentStep, Context

if TYPE_CHECKING:
    from cloud.jobs.engine import Outcome

RETRY_PAUSE_S, LONGEST_PAUSE_S = 2.0, 30.0
AGENT_LOST_AFTER_S = 45.0


class Commanding:
    """Mixed into `engine.Turn`, which brings the job, its context and the moves `_passed`, `_undone`, `_let_go`."""

    job: Job
    ctx: Context

    if TYPE_CHECKING:

        def _passed(self, state: str) -> "Outcome": ...
        def _undone(self, state: str | None) -> "Outcome": ...
        def undo_failed(self, error: Exception) -> "Outcome": ...
        def _let_go(self) -> "Outcome": ...
        def _expect_in_time(self, step: Any) -> None: ...

    @property
    def asked(self) -> bool:
        """Whether a machine has been asked and the job waits for its answer."""
        return any("agent" in held for held in self.job.waiting.values())

    def _run_command(self, step: AgentStep) -> "Outcome":
        answer = self._answer()
        if answer is None:
            if self._is_pausing():
                return self._let_go()
            if self.asked:
                self._expect_in_time(step)
                self._expect_alive(step)
                return self._let_go()
            return self._ask(step, "run") or self._passed("skipped")
        if answer.failure is None:
            step.answered(self.ctx, answer.body)
            return self._passed("succeeded")
        if answer.failure.nature == "transient" and self.job.attempt <= step.retries and not self.job.is_cancelled:
            return self._pause()
        raise failures.of_agent(answer.failure)

    def _undo_command(self, step: AgentStep) -> "Outcome":
        answer = self._answer()
        if answer is None:
            # An undo has no deadline: what a machine that is away still has must not be given to another, so the
            # job keeps its reservations until the machine is back. The sweep sends the command again then.
            if self._is_pausing() or self.asked:
                return self._let_go()
            return self._ask(step, "undo") or self._undone(None)
        if answer.failure is None or answer.failure.nature == "not_found":
            step.undo_answered(self.ctx, answer.body)
            return self._undone("undone")
        if answer.failure.nature == "transient":
            return self._pause()  # for as long as it takes: the machine is there, and is not able yet
        return self.undo_failed(failures.of_agent(answer.failure))

    def command(self, step: AgentStep, direction: str) -> tuple[str, Command] | None:
        """The agent and the command of the step as it stands; None when there is nothing to ask or nobody to ask."""
        agent = step.agent(self.ctx)
        message: Message | None = step.ask(self.ctx) if direction == "run" else step.undo_ask(self.ctx)
        if agent is None or message is None:
            return None
        job = self.job
        return str(agent), Command(
            key=f"{job.uuid}:{job.cursor}:{direction}:{job.attempt}",
            job=str(job.uuid),
            sequence=job.sequence,
            resource=str(job.resource_uuid),
            step=f"{job.cursor}",
            direction="run" if direction == "run" else "undo",
            attempt=job.attempt,
            task=message.kind,
            body=message.to_document(),
            deadline=self._command_deadline(step, direction),
        )

    def _command_deadline(self, step: AgentStep, direction: str) -> float:
        """A run that is sent again has no longer than the first time; seconds since the epoch."""
        if direction == "undo":
            return time.time() + agents.EXPIRES_AT_MOST_S
        asked_until = self.job.step_deadline_at
        return asked_until.timestamp() if asked_until else time.time() + step.deadline

    def _expect_alive(self, step: AgentStep) -> None:
        """Raise when the machine asked has been silent for a while: the job turns round, and undoes when it is back."""
        for held in self.job.waiting.values():
            if (
                "agent" in held
                and time.time() - held["sent_at"] > AGENT_LOST_AFTER_S
                and not agents.is_alive(held["agent"])
            ):
                raise failures.agent_lost(step)

    def _ask(self, step: AgentStep, direction: str) -> "Outcome | None":
        made = self.command(step, direction)
        if made is None:
            return None
        agent, command = made
        job = self.job
        job.waiting = {command.key: {"agent": agent, "sent_at": time.time()}}
        if direction == "run" and job.step_deadline_at is None:
            job.step_deadline_at = database_now() + timedelta(seconds=step.deadline)
        transaction.on_commit(lambda: agents.send_command(agent, command, is_bulk=step.is_bulk), robust=True)
        return self._let_go()

    def resend(self, step: AgentStep) -> tuple[str, Command] | None:
        """The command that the job waits for, made again with the same key."""
        key = next((key for key in self.job.waiting if key != "pause"), "")
        return self.command(step, key.split(":")[2]) if key.count(":") == 3 else None

    def _answer(self) -> Answer | None:
        for held in self.job.waiting.values():
            if "answer" in held:
                return Answer.from_document(held["answer"])
        return None

    def _is_pausing(self) -> bool:
        return bool(self.job.waiting.get("pause", {}).get("until", 0) > time.time())

    def _pause(self) -> "Outcome":
        """Another attempt, after a little while."""
        self.job.attempt += 1
        self.job.waiting = {
            "pause": {"until": time.time() + min(RETRY_PAUSE_S * (self.job.attempt - 1), LONGEST_PAUSE_S)}
        }
        return self._let_go()
