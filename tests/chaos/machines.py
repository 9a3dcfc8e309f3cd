"""Machines in memory, each with an agent: the shipped journal, workshop, sections and handlers on drivers in memory.

Threads alone are not the shipped ones: work lies on a tray until the case lets it be done.
"""

import copy
import itertools
import json
import sqlite3
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.agent import version
from cloud.agent.convergence import Convergence, _Section
from cloud.agent.journal import Journal
from cloud.agent.registry import QUERIES, Machine
from cloud.agent.work import Pools, Workshop
from cloud.common import signing
from cloud.common.driver import DriverError
from cloud.common.wire import Answer, Command, Desired, Document, Failure, Held, Hello, Observation, Query
from cloud.infra.messages import Retire
from compute.agent import handlers as _handlers  # noqa: F401
from compute.agent import hypervisor
from compute.drivers.fake import FakeHypervisor
from compute.messages import EVENT_TOPIC
from network.agent import handlers as _networks  # noqa: F401
from network.agent.machine import driver
from network.drivers.fake import FakeNetwork
from storage.agent import handlers as _storages  # noqa: F401
from tests.chaos.broker import Letter, Redis

ALIVE_TTL_S = 15
_files = itertools.count()
_TABLES = ("meta", "keys", "resources", "sections", "nonces")


# Who is told of each call of a driver, while a command is at work.
BUSY: list[Callable[[], None]] = []


class Died(BaseException):
    """The agent's process dies in the middle of a command."""


class Tray:
    """In the place of a pool of threads: what was submitted is done when the case says so."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def submit(self, function: Callable[..., None], *args: Any) -> None:
        self.work.append(lambda: function(*args))

    def shutdown(self, **_: Any) -> None:
        self.work.clear()


class Bench(Workshop):
    """The agent's workshop, its pools replaced by one tray; `trouble(command, moment)` may break a command."""

    def __init__(self, *args: Any, trouble: Callable[[Command, str], None]) -> None:
        self.retire: Callable[[], Document] = dict
        self.tray, self._trouble = Tray(), trouble
        super().__init__(*args, pools=Pools(self.tray, self.tray, self.tray))  # type: ignore[arg-type]

    def _run(self, entry: Any) -> Document:
        self._trouble(entry.command, "accepted")
        BUSY.append(lambda: self._trouble(entry.command, "driver"))
        # The shipped handler ends the unit of this very machine.
        try:
            done: Document = self.retire() if entry.command.task == Retire.kind else super()._run(entry)
        finally:
            BUSY.pop()
        self._trouble(entry.command, "done")
        return done


class Wake:
    """In the place of a section's routine."""

    def __init__(self) -> None:
        self.is_due = True

    def wake(self) -> None:
        self.is_due = True

    def stop(self) -> None: ...


class Sections(Convergence):
    """The agent's sections without their threads."""

    def _begin(self, section: _Section) -> None:
        self._sections[section.name] = section
        section.routine = Wake()  # type: ignore[assignment]

    def work(self, *, is_drift: bool = False) -> bool:
        """One pass over what is due, in a drift over all; whether there was anything to do."""
        wakes = [(one, one.routine) for one in self._sections.values()]
        due = [(one, wake) for one, wake in wakes if isinstance(wake, Wake) and (wake.is_due or is_drift)]
        for section, wake in due:
            wake.is_due = False
            self._once(section)
        return bool(due)

    def rest(self) -> None:
        """All is as it was looked at last: nothing is due, nobody waits for a word."""
        for section in self._sections.values():
            section.routine, section.is_asked, section.has_passed = Wake(), False, True  # type: ignore[assignment]
            section.routine.is_due = False  # type: ignore[union-attr, attr-defined]


class Inline:
    """In the place of the fake hypervisor's dispatcher thread."""

    def put(self, function: Callable[[], None]) -> None:
        function()

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Node:
    """One machine: what is on it lives in `machine.resources`; its agent may be up or down, and away or not."""

    machine: Machine
    redis: Redis
    folder: Path
    facts: Document
    trouble: Callable[[Command, str], None]
    hashed: str = ""
    boot: str = "boot-1"
    is_up: bool = False
    is_away: bool = False
    is_retired: bool = False
    looked_at: float = 0.0
    outbox: list[tuple[str, Document]] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine.link = self
        self.file = self.folder / f"{self.uuid}-{next(_files)}.sqlite3"
        self._open_journal()
        self._make_process()

    def _open_journal(self) -> None:
        self.journal = Journal(self.file, self.uuid, self.boot)
        self._sqlite.execute("PRAGMA synchronous=OFF")

    @property
    def uuid(self) -> str:
        return self.machine.uuid

    @property
    def _sqlite(self) -> sqlite3.Connection:
        return self.journal._database

    def _make_process(self) -> None:
        self.machine.resources.pop("storage.told", None)
        self.workshop = Bench(self.machine, self.journal, self._answer, time.time, trouble=self.trouble)
        self.workshop.retire = self._retire
        self.sections = Sections(self.machine, self.journal, self.boot, self._tell_held)

    def _retire(self) -> Document:
        self.is_retired = True
        return {}

    # its life

    def start(self) -> None:
        """The agent's process begins: what it knows is in its journal. It says hello as it connects."""
        if self.is_retired:
            return  # its unit is disabled, its access gone
        self.journal.close()
        self._open_journal()
        self._make_process()
        self.is_up = True
        self.sections.start()
        self.greet()
        self.tell_inventory("connected")

    def kill(self) -> None:
        """The process is gone with all it had in memory; the journal and the machine stay as they are."""
        self.is_up = False
        self.outbox.clear()
        self._make_process()

    def lose_power(self) -> None:
        """The machine stops: domains are off, bridges and DHCP servers are gone; disks and the journal stay."""
        self.kill()
        self.boot = str(uuid.uuid4())
        for domain in self.hypervisor._domains.values():
            domain.state = "stopped"
        self.network.bridges.clear()
        self.network.servers.clear()

    # what it does

    def take(self, letter: Letter) -> None:
        document = letter.kwargs["document"]
        match letter.task:
            case "agent.command":
                command = Command.from_document(document)
                self.commands[command.key] = command
                try:
                    self.workshop.take(command, is_bulk=letter.queue.endswith(".bulk"))
                except Died:
                    self.kill()
            case "agent.desired":
                self.sections.offer(Desired.from_document(document))
            case "agent.query":
                self.reply(Query.from_document(document))

    def reply(self, query: Query) -> None:
        try:
            found = QUERIES[query.task]
            body = found.function(found.message.from_document(query.body), self.machine).to_document()
            answer = Answer(query.id, self.uuid, body)
        except DriverError as error:
            answer = Answer(query.id, self.uuid, failure=Failure(error.nature, error.code, error.detail))
        self.redis.set(f"mica:answer:{query.id}", json.dumps(answer.to_document()), ex=30)

    def work(self) -> bool:
        """One piece of what lies on its trays; False when there was nothing."""
        if not self.is_up:
            return False
        if not self.workshop.tray.work:
            return self.sections.work()
        try:
            self.workshop.tray.work.pop(0)()
        except Died:
            self.kill()
        if self.is_retired:
            self.kill()
        return True

    def beat(self) -> None:
        """A sign of life, and what could not be said while it was away."""
        if not self.is_up or self.is_away:
            return
        said, self.outbox[:] = list(self.outbox), []
        for task, document in said:
            self._say(task, document)
        alive = {
            "at": time.time(),
            "boot_id": self.boot,
            "in_work": self.workshop.in_work(),
            "held": self.sections.held(),
            "failures": self.sections.failures(),
        }
        self.redis.set(f"mica:agent:{self.uuid}:alive", json.dumps(alive), ex=ALIVE_TTL_S)

    def greet(self) -> None:
        facts = {**self.facts, "boot_id": self.boot}
        hello = Hello(
            agent=self.uuid,
            version=version.current(),
            protocol=version.PROTOCOL,
            boot_id=self.boot,
            facts=facts,
            held=self.sections.held(),
            failures=self.sections.failures(),
            at=time.time(),
        )
        self._say("infra.agent_hello", hello.to_document())
        self.beat()

    def tell_inventory(self, cause: str = "periodic") -> None:
        if self.is_up and hypervisor.RESOURCE in self.machine.resources:
            hypervisor.tell_inventory(self.machine, cause)

    def _say(self, task: str, document: Document) -> None:
        if not self.is_up:
            return
        if self.is_away:
            self.outbox.append((task, document))
        else:
            signature = signing.sign(self.hashed, task, document, agent=self.uuid, at=time.time())
            self.redis.send_task(task, kwargs={"document": document, "signature": signature}, queue="control.answers")

    def _answer(self, answer: Answer) -> None:
        """It is in the journal, and is said: the last moment to die."""
        if command := self.commands.get(answer.key):
            self.trouble(command, "answered")
        self._say("jobs.answer", answer.to_document())

    def _tell_held(self, held: Held) -> None:
        self._say("infra.desired_held", Held(**{**vars(held), "at": time.time()}).to_document())

    # `cloud.agent.registry.Link`

    def publish(self, topic: str, body: Document) -> None:
        if not (self.is_away and topic == EVENT_TOPIC):
            self._say("infra.observed", Observation(self.uuid, topic, body, time.time()).to_document())

    def show_progress(self, key: str, document: Document) -> None: ...

    def is_aborted(self, key: str) -> bool:
        return not self.is_away and self.redis.exists(f"mica:abort:{self.uuid}:{key}")

    def open_stream(self, address: str, port: int, ticket: str) -> Any:
        raise ConnectionError("images are handed over in memory here")

    # what is on it

    @property
    def hypervisor(self) -> FakeHypervisor:
        found = self.machine.resources[hypervisor.RESOURCE]
        assert isinstance(found, FakeHypervisor)
        return found

    @property
    def network(self) -> FakeNetwork:
        found = driver(self.machine)
        assert isinstance(found, FakeNetwork)
        return found

    def save(self) -> tuple[Any, ...]:
        rows = {name: self._sqlite.execute(f"SELECT * FROM {name}").fetchall() for name in _TABLES}
        domains = copy.deepcopy(self.hypervisor._domains)
        return (
            self.boot,
            domains,
            dict(self.network.bridges),
            dict(self.network.servers),
            rows,
            self.is_up,
            self.is_retired,
        )

    def restore(self, saved: tuple[Any, ...]) -> None:
        """As it was; the process is a new one that knows the same."""
        self.boot, domains, bridges, servers, rows, self.is_up, self.is_retired = saved
        self.is_away, self.looked_at = False, time.time()
        self.outbox.clear()
        self.hypervisor._domains = copy.deepcopy(domains)
        self.hypervisor._failures.clear()
        self.network.bridges, self.network.servers = dict(bridges), dict(servers)
        self.network.failing.clear()
        self._sqlite.execute("BEGIN")
        for name in _TABLES:
            self._sqlite.execute(f"DELETE FROM {name}")
            for row in rows[name]:
                self._sqlite.execute(f"INSERT INTO {name} VALUES ({','.join('?' * len(row))})", row)
        self._sqlite.execute("COMMIT")
        self._make_process()
        self.sections.start()
        self.sections.rest()
