"""Commands at work: one at a time per resource and in order, quick ones never behind others, each journaled."""

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloud.agent.journal import Journal, Verdict
from cloud.agent.registry import COMMANDS, Call, Machine
from cloud.common.driver import Aborted, DriverError, NotFound, Rejected, Unsupported
from cloud.common.wire import Answer, Command, Document, Failure

log = logging.getLogger(__name__)

QUICK_THREADS = 8
BULK_THREADS = 4
# They wait for guests, which costs next to nothing; threads are made as they are needed.
PATIENT_THREADS = 64


@dataclass(frozen=True)
class Pools:
    """The threads that commands are worked on in; a thousand simulated agents share theirs."""

    quick: ThreadPoolExecutor
    bulk: ThreadPoolExecutor
    patient: ThreadPoolExecutor

    @classmethod
    def made(cls, quick: int = QUICK_THREADS, bulk: int = BULK_THREADS, patient: int = PATIENT_THREADS) -> "Pools":
        return cls(
            ThreadPoolExecutor(quick, thread_name_prefix="quick"),
            ThreadPoolExecutor(bulk, thread_name_prefix="bulk"),
            ThreadPoolExecutor(patient, thread_name_prefix="patient"),
        )

    def stop(self) -> None:
        for pool in (self.quick, self.bulk, self.patient):
            pool.shutdown(wait=False, cancel_futures=True)


Now = Callable[[], float]
Post = Callable[[Answer], None]


@dataclass(eq=False)
class _Entry:
    command: Command
    call: Call
    is_bulk: bool
    is_patient: bool
    has_begun: bool = False
    is_dropped: bool = False
    is_interrupted: bool = False


class Workshop:
    """Takes commands, works on them in threads of its own, and posts one answer for each.

    `now` is control's time, by which deadlines are. `forget` is told each key that ended.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        post: Post,
        now: Now,
        forget: Callable[[str], None] = lambda key: None,
        pools: Pools | None = None,
    ) -> None:
        self._machine, self._journal, self._post, self._now, self._forget = machine, journal, post, now, forget
        self._lock = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        self._lanes: dict[str, deque[_Entry]] = {}
        self._pools, self._has_own_pools = pools or Pools.made(), pools is None
        self._is_stopping = False

    def in_work(self) -> list[str]:
        """The keys that were taken and are not answered yet."""
        with self._lock:
            return list(self._entries)

    def take(self, command: Command, *, is_bulk: bool = False) -> None:
        """Take a command, or post at once why not; a key that is in work already is left alone. Never blocks long."""
        handler = COMMANDS.get(command.task)
        answers: list[Answer] = []
        with self._lock:
            if command.key in self._entries or self._is_stopping:
                return
            try:
                verdict, answer = self._journal.accept(command)
            except sqlite3.Error as error:
                log.exception("the journal does not take %s", command.key)
                verdict, answer = Verdict.ANSWER, self._failed(command, "transient", "journal_failed", str(error))
            if verdict is Verdict.WORK:
                call = Call(command.key, command.job, command.resource, self._machine, command.step)
                entry = _Entry(
                    command,
                    call,
                    is_bulk=is_bulk or (handler is not None and handler.is_bulk),
                    is_patient=handler is not None and handler.is_patient,
                )
                if command.direction == "undo":
                    answers += self._cancel_run(command)
                self._entries[command.key] = entry
                lane = self._lanes.setdefault(command.resource, deque())
                lane.append(entry)
                if len(lane) == 1:
                    self._submit(entry)
        if answer is not None:
            answers.append(answer)
        for each in answers:
            self._post(each)

    def drop_aborted(self) -> None:
        """Answer for commands that control has cancelled while they wait for a thread; called each second.

        Those at work look at their tokens themselves.
        """
        with self._lock:
            waiting = [entry for entry in self._entries.values() if not entry.has_begun]
        for entry in waiting:
            if not self._machine.link.is_aborted(entry.command.key):
                continue
            with self._lock:
                if entry.has_begun or entry.is_dropped or self._is_stopping:
                    continue
                answer = self._drop(entry)
            self._forget(entry.command.key)
            self._post(answer)

    def stop(self, within_s: float) -> None:
        """Take no more; let short work end, break bulk work off (control sends it again): `within_s` at most."""
        with self._lock:
            self._is_stopping = True
            for entry in self._entries.values():
                if entry.is_bulk:
                    entry.is_interrupted = True
                    entry.call.cancelled.set()
            self._lock.wait_for(lambda: not self._entries, timeout=within_s)
        if self._has_own_pools:
            self._pools.stop()

    def _cancel_run(self, undo: Command) -> list[Answer]:
        """Cancel the run of a step whose undo has come. One that has not begun makes way at once, with an answer."""
        answers = []
        for entry in list(self._entries.values()):
            command = entry.command
            if (command.job, command.step, command.direction) != (undo.job, undo.step, "run"):
                continue
            entry.call.cancelled.set()
            if not entry.has_begun:
                answers.append(self._drop(entry))
        return answers

    def _drop(self, entry: _Entry) -> Answer:
        """Take a command that has not begun off its lane; what is answered for it."""
        entry.is_dropped = True
        self._remove(entry)
        aborted = Aborted()
        answer = self._failed(entry.command, aborted.nature, aborted.code, aborted.detail)
        self._journal.finish(answer)
        return answer

    def _submit(self, entry: _Entry) -> None:
        pools = self._pools
        pool = pools.bulk if entry.is_bulk else pools.patient if entry.is_patient else pools.quick
        pool.submit(self._work, entry)

    def _work(self, entry: _Entry) -> None:
        command = entry.command
        answer: Answer | None = None
        with self._lock:
            if entry.is_dropped:
                return
            entry.has_begun = True
        try:
            answer = self._answer(entry)
            if answer is not None:
                self._journal.finish(answer)
        except sqlite3.Error:
            log.exception("the journal does not keep the answer of %s", command.key)
        finally:
            if answer is not None:
                self._post(answer)
            self._leave(entry)

    def _leave(self, entry: _Entry) -> None:
        self._forget(entry.command.key)
        with self._lock:
            self._remove(entry)
            self._lock.notify_all()

    def _remove(self, entry: _Entry) -> None:
        """Take an entry off its lane; what is first then begins, or is forgotten when the agent stops."""
        del self._entries[entry.command.key]
        lane = self._lanes[entry.command.resource]
        was_first = lane[0] is entry
        lane.remove(entry)
        if self._is_stopping and was_first:
            for waiting in lane:
                del self._entries[waiting.command.key]
            lane.clear()
        if not lane:
            del self._lanes[entry.command.resource]
        elif was_first:
            self._submit(lane[0])

    def _answer(self, entry: _Entry) -> Answer | None:
        """Do it. None when the agent's own end broke it off: then there is no answer, and control asks again."""
        command = entry.command
        if refusal := self._journal.may_run(command):
            return Answer(command.key, self._machine.uuid, failure=refusal)
        if command.direction == "run" and command.deadline < self._now():
            return self._failed(command, "failed", "expired", "The command's deadline had passed when its turn came.")
        try:
            return Answer(command.key, self._machine.uuid, self._run(entry))
        except NotFound as error:
            if command.direction == "undo":
                return Answer(command.key, self._machine.uuid)
            return self._failed(command, error.nature, error.code, error.detail)
        except Aborted as error:
            if entry.is_interrupted:
                return None
            return self._failed(command, error.nature, error.code, error.detail)
        except DriverError as error:
            log.warning("%s (%s): %s: %s", command.task, command.key, error.code, error.detail)
            return self._failed(command, error.nature, error.code, error.detail)
        except Exception as error:
            log.exception("%s (%s) failed", command.task, command.key)
            return self._failed(command, "failed", "internal_error", f"{type(error).__name__}: {error}")

    def _run(self, entry: _Entry) -> Document:
        command = entry.command
        handler = COMMANDS.get(command.task)
        if handler is None:
            raise Unsupported("unknown_command", f"This agent does not know {command.task}; upgrade it.")
        try:
            message = handler.message.from_document(self._machine.opened(command.body))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Rejected("malformed_command", f"This agent cannot read {command.task}: {error}") from error
        entry.call.check_aborted()
        result = handler.function(message, entry.call)
        return {} if result is None else result.to_document()

    def _failed(self, command: Command, nature: str, code: str, detail: str) -> Answer:
        return Answer(command.key, self._machine.uuid, failure=Failure(nature, code, detail))
