"""The agent side of every domain registers here: what it does when control asks, and what it tells by itself.

    @command(StartDomain)               def start(message: StartDomain, call: Call) -> DomainState | None
    @command(CacheImage, bulk=True)     def cache(message: CacheImage, call: Call) -> Message | None
    @command(StopDomain, patient=True)  def stop(message: StopDomain, call: Call) -> Message | None
    @query(ProbeAddress)                def probe(message: ProbeAddress, machine: Machine) -> Message
    @section("networks")                def converge(body: dict[str, Any], machine: Machine) -> None
    @stream_verb("compute.vnc")         async def vnc(ticket, reader, writer, machine) -> None
    @sampler                            def sample(machine: Machine) -> list[Sample]
    @fact                               def versions(machine: Machine) -> dict[str, Any]
    @on_start                           def begin(machine: Machine) -> None
    @inspector("storage")               def look(asked: dict[str, Any], machine: Machine) -> dict[str, Any]
    keeper("storage.thing", StorageKeeper())

A handler is found by the `kind` of its message class. Handlers run in threads, raise `cloud.common.driver` errors and
nothing else, and must bear being run twice. Which modules register is one literal list in `cloud.agent.main`.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cloud.agent.clockwork import Clockwork
from cloud.agent.config import AgentConfig
from cloud.agent.peers import Peers
from cloud.common import sealing
from cloud.common.driver import Aborted, Rejected
from cloud.common.faults import Faults
from cloud.common.tickets import Ticket
from cloud.common.wire import Document, Message


class Link(Protocol):
    """What a machine needs of its link to control; `cloud.agent.link` is the real one."""

    def publish(self, topic: str, body: Document) -> None: ...

    def show_progress(self, key: str, document: Document) -> None: ...

    def is_aborted(self, key: str) -> bool: ...

    def open_stream(self, address: str, port: int, ticket: str) -> socket.socket: ...


class Unlinked:
    """A link that leads nowhere but remembers: for tests of handlers."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Document]] = []
        self.progress: list[tuple[str, Document]] = []
        self.aborted: set[str] = set()

    def publish(self, topic: str, body: Document) -> None:
        self.published.append((topic, body))

    def show_progress(self, key: str, document: Document) -> None:
        self.progress.append((key, document))

    def is_aborted(self, key: str) -> bool:
        return key in self.aborted

    def open_stream(self, address: str, port: int, ticket: str) -> socket.socket:
        raise ConnectionError("this machine is not linked to any other")


@dataclass
class Machine:
    """The machine an agent runs on. `state_dir` survives restarts; `resources` is where drivers keep what lives long.

    Drivers put directories whose content belongs to the platform into `resources["platform_paths"]` (a set of Path):
    the sampler counts them. `endings` are called when the agent stops. Simulated drivers look
    at `faults`, and a machine of the simulator has a `disk`: what of it outlives its deaths.
    """

    uuid: str
    kind: str
    config: AgentConfig
    state_dir: Path
    link: Link = field(default_factory=Unlinked)
    resources: dict[str, Any] = field(default_factory=dict)
    is_stopping: threading.Event = field(default_factory=threading.Event)
    clockwork: Clockwork = field(default_factory=Clockwork)
    faults: Faults = field(default_factory=Faults)
    endings: list[Callable[[], None]] = field(default_factory=list)
    disk: dict[str, Any] | None = None

    def opened(self, document: Document) -> Document:
        """A message's body with its secrets, which are sealed to this machine, in clear. Raises Transient."""
        return sealing.opened(document, self.uuid, self.config.key)

    @cached_property
    def peers(self) -> Peers:
        """Whom this machine refuses at its stream door, and does not speak to at another's."""
        return Peers(self.state_dir / "revoked.json")

    def publish(self, topic: str, body: Document) -> None:
        """Tell control what was seen, as `compute.domain_event`. Never blocks, keeps order, is lost on a crash."""
        self.link.publish(topic, body)

    def open_stream(self, address: str, port: int, ticket: str) -> socket.socket:
        """A blocking TLS socket to another agent's stream door, past its greeting: raw bytes both ways from here.

        Raises Transient when it cannot be reached, Rejected (with the door's code) when the door refuses the ticket,
        and `certificate_revoked` when the other agent's certificate was revoked.
        """
        stream = self.link.open_stream(address, port, ticket)
        if isinstance(stream, ssl.SSLSocket):
            try:
                self.peers.expect_welcome(stream)
            except Rejected:
                stream.close()
                raise
        return stream


@dataclass
class Call:
    """One running command, as its handler sees it. `key` is the command's key, `resource` what it acts on."""

    key: str
    job: str
    resource: str
    machine: Machine
    step: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Report `done` of `total` (bytes, mostly) and what is being done; total 0 when it is not known.

        Call as often as you like: it is sent once a second.
        """
        percent = round(min(100.0, 100.0 * done / total), 1) if total > 0 else None
        document = {"percent": percent, "text": text, "bytes_done": done, "bytes_total": total}
        self.machine.link.show_progress(self.key, document)

    def check_aborted(self) -> None:
        """Raise Aborted when control has cancelled this command, or when this agent stops and the work is bulk.

        Call as often as you like, at least each second in long work: it asks control once a second.
        """
        if self.cancelled.is_set() or self.machine.link.is_aborted(self.key):
            raise Aborted


@dataclass(frozen=True)
class Sample:
    """One line of measured numbers; `measurement` and `fields` are named in monitoring's catalogue.

    An unknown value is left out.
    """

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, int | float]


Stream = Callable[[Ticket, asyncio.StreamReader, asyncio.StreamWriter, Machine], Awaitable[None]]


@dataclass(frozen=True)
class CommandHandler:
    message: type[Message]
    function: Callable[[Any, Call], Message | None]
    is_bulk: bool
    is_patient: bool = False


@dataclass(frozen=True)
class QueryHandler:
    message: type[Message]
    function: Callable[[Any, Machine], Message]


class Keeper(Protocol):
    """Takes things of one kind out of the way, for the doctor. Each act is idempotent: done already is success.

    `id` is the quarantine's own name for the thing, a canonical uuid; `thing` says which one it is. Raises Rejected
    where the thing is in use, or something else is where it should go back to.
    """

    def set_aside(self, id: str, thing: Document, machine: Machine) -> None: ...

    def put_back(self, id: str, thing: Document, machine: Machine) -> None: ...

    def purge(self, id: str, thing: Document, machine: Machine) -> None: ...


COMMANDS: dict[str, CommandHandler] = {}
QUERIES: dict[str, QueryHandler] = {}
SECTIONS: dict[str, Callable[[Document, Machine], None]] = {}
STREAMS: dict[str, Stream] = {}
SAMPLERS: dict[str, Callable[[Machine], list[Sample]]] = {}
FACTS: dict[str, Callable[[Machine], Document]] = {}
STARTS: dict[str, Callable[[Machine], None]] = {}
INSPECTORS: dict[str, Callable[[Document, Machine], Document]] = {}
KEEPERS: dict[str, Keeper] = {}

F = TypeVar("F", bound=Callable[..., Any])


def command(message: type[Message], *, bulk: bool = False, patient: bool = False) -> Callable[[F], F]:
    """Register the handler of a command, `fn(message, call) -> Message | None`.

    Its effect must be idempotent. `bulk` marks what keeps the machine busy for minutes, `patient` what mostly waits for
    others (a guest that should switch itself off): neither stands in the way of quick work.
    """

    def register(function: F) -> F:
        _add(COMMANDS, message.kind, CommandHandler(message, function, bulk, patient))
        return function

    return register


def query(message: type[Message]) -> Callable[[F], F]:
    """Register the handler of a read-only question, `fn(message, machine) -> Message`, done within 5 seconds."""

    def register(function: F) -> F:
        _add(QUERIES, message.kind, QueryHandler(message, function))
        return function

    return register


def section(name: str) -> Callable[[F], F]:
    """Register what brings the machine to a section's desired state, `fn(body, machine) -> None`.

    Called on change, on start and each minute (drift), never twice at once for one section.
    """

    def register(function: F) -> F:
        _add(SECTIONS, name, function)
        return function

    return register


def stream_verb(name: str) -> Callable[[F], F]:
    """Register a verb of the stream door, `async fn(ticket, reader, writer, machine)`.

    Connect to what is behind first: a driver error raised before the first read or write refuses the stream with its
    code. The door tells the caller it is open at the first read or write. It closes the stream when the function ends.
    """

    def register(function: F) -> F:
        _add(STREAMS, name, function)
        return function

    return register


def sampler(function: F) -> F:
    """Register `fn(machine) -> list[Sample]`, called every 10 seconds in a thread of its own."""
    _add(SAMPLERS, _place(function), function)
    return function


def fact(function: F) -> F:
    """Register `fn(machine) -> dict`: facts for the agent's hello, told each time it (re)connects. Slow ones cache."""
    _add(FACTS, _place(function), function)
    return function


def on_start(function: F) -> F:
    """Register `fn(machine) -> None`, called once before work is taken; start event threads here (daemon ones)."""
    _add(STARTS, _place(function), function)
    return function


def inspector(part: str) -> Callable[[F], F]:
    """Register what the doctor's one query looks at, `fn(asked, machine) -> dict`: what is there, within a second."""

    def register(function: F) -> F:
        _add(INSPECTORS, part, function)
        return function

    return register


def keeper(kind: str, keeps: Keeper) -> None:
    """Register who sets things of this kind aside, puts them back and purges them."""
    _add(KEEPERS, kind, keeps)


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _add(table: dict[str, Any], name: str, entry: Any) -> None:
    if not name:
        raise TypeError("a message needs a kind, as `compute.start_domain`, to have a handler")
    if name in table:
        raise TypeError(f"{name} has a handler already: {table[name]}")
    table[name] = entry
