"""One agent without its process: what comes in goes to work, what was done goes out.

`cloud.agent.agent` gives it a process and a broker of its own, `cloud.agent.simulator` has many of them in one.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cloud.agent import facts, registry, upgrade, version
from cloud.agent.clockwork import Routine
from cloud.agent.convergence import Convergence
from cloud.agent.intake import Questions, read
from cloud.agent.journal import Journal
from cloud.agent.link import RedisLink
from cloud.agent.registry import Machine
from cloud.agent.work import Pools, Workshop
from cloud.common.wire import Answer, Command, Desired, Document, Held, Hello, Query

log = logging.getLogger(__name__)

PRUNE_EVERY_S = 3600.0
ABORT_EVERY_S = 1.0

Put = Callable[[str, Document], None]
Own = Mapping[str, Callable[[], Document]]


class Core:
    """The parts of one agent. `put` queues a document for a task of control's.

    `left_out` are the handler modules that this machine cannot load, with the reason; `own` the facts of the machine
    itself where it is not this one; `pools` and `query_pool` threads to share with others.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        link: RedisLink,
        put: Put,
        *,
        boot_id: str,
        left_out: dict[str, str] | None = None,
        own: Own | None = None,
        pools: Pools | None = None,
        query_pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.machine, self.journal, self.boot_id = machine, journal, boot_id
        self._link, self._put, self._own = link, put, own
        self._left_out = {} if left_out is None else left_out
        self._workshop = Workshop(machine, journal, self._answer, link.now, link.forget, pools)
        self._convergence = Convergence(machine, journal, boot_id, self._tell_held)
        self._questions = Questions(machine, link.answer_query, link.now, query_pool)
        # Started with the first connection, so that nothing is told before there is somebody to tell.
        self._greeting: Routine = machine.clockwork.routine(self._greet, name="greeting", first_s=None)

    def start(self) -> None:
        """Begin the domains' own work, and converge to what was wanted last."""
        for name, begin in registry.STARTS.items():
            try:
                begin(self.machine)
            except Exception as error:
                log.exception("%s did not start", name)
                self._left_out[name] = f"it did not start: {type(error).__name__}: {error}"
        self._convergence.start()
        self.machine.clockwork.routine(self._prune, name="pruning")
        self.machine.clockwork.routine(self._drop_aborted, name="dropping", first_s=ABORT_EVERY_S)

    def receive(self, task: str, document: Document, is_bulk: bool = False) -> None:
        """Take a message from control; one that makes no sense is logged and left."""
        if task == "agent.command":
            if command := read(Command, document):
                self._workshop.take(command, is_bulk=is_bulk)
        elif task == "agent.desired":
            if desired := read(Desired, document):
                self._convergence.offer(desired)
        elif task == "agent.query" and (query := read(Query, document)):
            self._questions.take(query)

    def greet(self) -> None:
        """Say hello soon, with fresh facts: at each connection, for Redis may have forgotten, and control with it."""
        self._greeting.wake()

    def describe(self) -> Document:
        """What the heartbeat tells."""
        return {
            "boot_id": self.boot_id,
            "version": version.current(),
            "protocol": version.PROTOCOL,
            "clock_skew_s": round(-self._link.skew_s, 3),
            "in_work": self._workshop.in_work(),
            "held": self._convergence.held(),
            "failures": self._convergence.failures(),
            "sections_error": self._convergence.errors(),
        }

    def stop(self, within_s: float) -> None:
        """Take no more, let short work end for at most `within_s` seconds, and close what the domains opened."""
        self.machine.is_stopping.set()
        self._greeting.stop()
        self._convergence.stop()
        self._workshop.stop(within_s)
        for end in self.machine.endings:
            try:
                end()
            except Exception:
                log.exception("%r did not end", end)

    def _answer(self, answer: Answer) -> None:
        self._put("jobs.answer", answer.to_document())

    def _tell_held(self, held: Held) -> None:
        told = dataclasses.replace(held, at=self._link.said_at())
        self._put("infra.desired_held", told.to_document())

    def _greet(self) -> None:
        told = facts.gather(self.machine, self._own)
        told |= {"boot_id": self.boot_id, "clock_skew_s": round(-self._link.skew_s, 3), "left_out": self._left_out}
        own = self.machine.resources.get(upgrade.RESOURCE)
        told |= {"release_failure": own.failure() if isinstance(own, upgrade.Upgrade) else None}
        hello = Hello(
            agent=self.machine.uuid,
            version=version.current(),
            protocol=version.PROTOCOL,
            boot_id=self.boot_id,
            facts=told,
            held=self._convergence.held(),
            failures=self._convergence.failures(),
            at=self._link.said_at(),
        )
        self._put("infra.agent_hello", hello.to_document())

    def _prune(self) -> float | None:
        if self.machine.is_stopping.is_set():
            return None
        self.journal.prune()
        return PRUNE_EVERY_S

    def _drop_aborted(self) -> float | None:
        if self.machine.is_stopping.is_set():
            return None
        self._workshop.drop_aborted()
        return ABORT_EVERY_S
