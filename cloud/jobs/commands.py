"""The part of a turn that speaks with a machine: asks, waits, takes the answer, tries again."""

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from cloud.common.errors import Problem
from cloud.common.wire import Answer, Command, Message
from cloud.jobs import agents, circuit, cleanups, failures, machines
from cloud.jobs.leases import Clock
from cloud.jobs.machines import AGENT_LOST_AFTER_S
from cloud.jobs.models import Job
from cloud.jobs.workflow import AgentStep, Context, Step

if TYPE_CHECKING:
    from cloud.jobs.turn import Outcome

RETRY_PAUSE_S, LONGEST_PAUSE_S = 2.0, 30.0


def key_of(job: Job, position: int, direction: str, attempt: int) -> str:
    return f"{job.uuid}:{position}:{direction}:{attempt}"


def made(job: Job, position: int, direction: str, attempt: int, message: Message, deadline: float) -> Command:
    """The command that asks for a step of a job, the same each time it is made."""
    return Command(
        key=key_of(job, position, direction, attempt),
        job=str(job.uuid),
        sequence=job.sequence,
        resource=str(job.resource_uuid),
        step=f"{position}",
        direction="run" if direction == "run" else "undo",
        attempt=attempt,
        task=message.kind,
        body=message.to_document(),
        deadline=deadline,
    )


def pause_s(attempt: int) -> float:
    """How long to wait before this attempt, which is not the first."""
    return min(RETRY_PAUSE_S * (attempt - 1), LONGEST_PAUSE_S)


class Commanding:
    """Mixed into `turn.Turn`, which brings the job, its context and the moves `_passed`, `_undone`, `_let_go`."""

    job: Job
    ctx: Context
    clock: Clock

    if TYPE_CHECKING:

        def _passed(self, state: str) -> "Outcome": ...
        def _undone(self, state: str | None) -> "Outcome": ...
        def undo_failed(self, error: Exception) -> "Outcome": ...
        def _let_go(self, look_in_s: float) -> "Outcome": ...
        def _wait_for(self, *topics: str, since_s: float = 0.0) -> "Outcome": ...
        def _expect_in_time(self, step: Any) -> None: ...

    @property
    def asked(self) -> bool:
        """Whether a machine has been asked and the job waits for its answer."""
        return any("agent" in held for held in self.job.waiting.values())

    def _run_command(self, step: AgentStep) -> "Outcome":
        answer = self._answer()
        if answer is None:
            if self.asked:
                if step.ends_its_agent and self._is_gone():
                    return self._passed("succeeded")
                self._expect_answer_in_time(step)
                self._expect_alive(step)
            if self.asked or self._is_pausing():
                return self._go_on_waiting()
            return self._ask_to_run(step)
        if answer.failure is None:
            step.answered(self.ctx, answer.body)
            return self._passed("succeeded")
        if answer.failure.nature == "transient" and self.job.attempt <= step.retries and not self.job.is_cancelled:
            return self._pause()
        raise failures.of_agent(answer.failure)

    def _ask_to_run(self, step: AgentStep) -> "Outcome":
        """Ask, unless the machine must clean up first: for that the step waits, and its time does not run."""
        agent = step.agent(self.ctx)
        if agent is not None and cleanups.is_owed_to(agent):
            self.job.step_deadline_at = None
            return self._wait_for(cleanups.topic(agent), since_s=2.0)
        return self._ask(step, "run") or self._passed("skipped")

    def _undo_command(self, step: AgentStep) -> "Outcome":
        answer = self._answer()
        if answer is None:
            return self._go_on_waiting() if self._is_pausing() else self._ask_to_undo(step)
        if answer.failure is None or answer.failure.nature == "not_found":
            step.undo_answered(self.ctx, answer.body)
            return self._undone("undone")
        if answer.failure.nature == "transient":
            return self._pause()  # for as long as it takes: the machine is there, and is not able yet
        return self.undo_failed(failures.of_agent(answer.failure))

    def _ask_to_undo(self, step: AgentStep) -> "Outcome":
        """An undo has no deadline. A machine that is lost owes it: the job ends, and keeps what is reserved for it."""
        agent = next((held["agent"] for held in self.job.waiting.values() if "agent" in held), None)
        is_asked = agent is not None
        agent = agent or step.agent(self.ctx)
        if agent is None or machines.find(agent) is None:
            return self._undone("undone")  # it is no part of the cloud any more
        # What it owes of later steps comes before this one, also when it is back by now.
        is_owing = machines.is_lost(agent) or cleanups.owed_by(self.job, agent)
        if is_owing and step.undo_ask(self.ctx) is not None:
            cleanups.owe(self.job, self.job.cursor, step, agent)
            return self._undone("owed")
        if is_asked:
            return self._go_on_waiting()
        return self._ask(step, "undo") or self._undone(None)

    def command(self, step: AgentStep, direction: str) -> tuple[str, Command] | None:
        """The agent and the command of the step as it stands; None when there is nothing to ask or nobody to ask."""
        agent = step.agent(self.ctx)
        message: Message | None = step.ask(self.ctx) if direction == "run" else step.undo_ask(self.ctx)
        if agent is None or message is None:
            return None
        job, deadline = self.job, self._command_deadline(step, direction)
        return str(agent), made(job, job.cursor, direction, job.attempt, message, deadline)

    def _command_deadline(self, step: AgentStep, direction: str) -> float:
        """A run that is sent again has no longer than the first time; seconds since the epoch."""
        if direction == "undo":
            return time.time() + agents.EXPIRES_AT_MOST_S
        asked_until = self.job.step_deadline_at
        return asked_until.timestamp() if asked_until else time.time() + step.deadline

    def _expect_answer_in_time(self, step: AgentStep) -> None:
        """As `_expect_in_time`; a machine that lives and did not answer a short command is given a rest."""
        try:
            self._expect_in_time(step)
        except Problem:
            for held in self.job.waiting.values():
                if "agent" in held and not step.is_bulk and agents.is_alive(held["agent"]):
                    circuit.failed(held["agent"], circuit.COMMAND)
            raise

    def _expect_alive(self, step: AgentStep) -> None:
        """Raise when the machine asked has been silent for a while: the job turns round, and undoes when it is back."""
        for held in self.job.waiting.values():
            is_old = "agent" in held and time.time() - held["sent_at"] > AGENT_LOST_AFTER_S
            if is_old and machines.is_lost(held["agent"]):
                raise failures.agent_lost(step, is_unknown=self._is_unknown(step))

    def _is_gone(self) -> bool:
        return any(machines.is_lost(held["agent"]) for held in self.job.waiting.values() if "agent" in held)

    def _is_unknown(self, step: Step) -> bool:
        """Whether nobody can say if a step that is given up was done: it was asked for, and nothing takes it back."""
        return isinstance(step, AgentStep) and self.asked and step.undo_ask(self.ctx) is None

    def _ask(self, step: AgentStep, direction: str) -> "Outcome | None":
        command = self.command(step, direction)
        if command is None:
            return None
        agent, asked = command
        if direction == "run":
            agents.expect_admitted(agent)
        self.job.waiting = {asked.key: {"agent": agent, "sent_at": time.time()}}
        if direction == "run" and self.job.step_deadline_at is None:
            self.job.step_deadline_at = self.clock.after(step.deadline)
        transaction.on_commit(lambda: agents.send_command(agent, asked, is_bulk=step.is_bulk), robust=True)
        return self._go_on_waiting()

    def _go_on_waiting(self) -> "Outcome":
        """For a machine's answer, or for the end of a pause; looked at again when it may be asked once more."""
        until, look_in_s = self.job.step_deadline_at, settings.MICA["resend_after_s"] if self.asked else 0.0
        return self._let_go(min(look_in_s, (until - self.clock.now()).total_seconds()) if until else look_in_s)

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
        self.job.waiting = {"pause": {"until": time.time() + pause_s(self.job.attempt)}}
        return self._go_on_waiting()


def is_in_work(agent: UUID | str, key: str) -> bool | None:
    """Whether the agent says that it works on this key; None when it says nothing at all."""
    alive = agents.heartbeat(agent)
    return None if alive is None else key in alive.get("in_work", [])
