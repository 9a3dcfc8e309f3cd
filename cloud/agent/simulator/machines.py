"""A simulated machine: the agent's real core on drivers in memory, and what may befall it."""

import logging
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloud.agent import stream_client, version
from cloud.agent.clockwork import Clockwork
from cloud.agent.config import AgentConfig
from cloud.agent.core import Core
from cloud.agent.door import Door
from cloud.agent.journal import Journal
from cloud.agent.link import Clock, RedisLink
from cloud.agent.outbox import Box
from cloud.agent.registry import SAMPLERS, Machine, Sample
from cloud.agent.simulator.config import Declared, Simulated, SimulatorConfig
from cloud.agent.work import Pools
from cloud.common.driver import Transient
from cloud.common.faults import Faults
from cloud.common.tickets import TicketError, addressee
from cloud.common.wire import Document

log = logging.getLogger(__name__)

QUICK_THREADS, BULK_THREADS, PATIENT_THREADS, QUERY_THREADS = 64, 16, 64, 16


class Neighbours(Protocol):
    """Who else is simulated here."""

    def neighbour(self, agent: str) -> "SimulatedMachine | None": ...


@dataclass
class Shared:
    """What all machines of the simulator have in common."""

    config: SimulatorConfig
    redis: Any
    outbox: Box
    directory: Path
    neighbours: Neighbours
    clock: Clock = field(default_factory=Clock)
    clockwork: Clockwork = field(default_factory=Clockwork)
    pools: Pools = field(default_factory=lambda: Pools.made(QUICK_THREADS, BULK_THREADS, PATIENT_THREADS))
    queries: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(QUERY_THREADS, "query"))


class Mouth:
    """Where one life of a machine speaks: shut when it dies or is cut off; answers may get lost."""

    def __init__(self, outbox: Box, faults: Faults) -> None:
        self._outbox, self._faults = outbox, faults
        self.is_shut = False

    @property
    def is_silent(self) -> bool:
        return self.is_shut or self._faults.fault.silent

    def put(self, task: str, document: Document) -> None:
        if not self.is_silent and not (task == "jobs.answer" and self._faults.loses()):
            self._outbox.put(task, document)


class SimulatedLink(RedisLink):
    """As an agent's own link, over the simulator's one client; streams go to the neighbours in this process."""

    def __init__(self, config: AgentConfig, mouth: Mouth, shared: Shared) -> None:
        super().__init__(config, mouth, shared=shared.redis, clock=shared.clock)
        self._mouth, self._neighbours = mouth, shared.neighbours

    def open_stream(self, address: str, port: int, ticket: str) -> socket.socket:
        try:
            peer = self._neighbours.neighbour(addressee(ticket))
        except TicketError:
            peer = None
        if peer is None or peer.is_away:
            raise Transient("stream_unreachable", f"The agent at {address}:{port} does not answer.")
        ours, theirs = socket.socketpair()
        peer.let_in(theirs)
        stream_client.knock(ours, ticket, f"{address}:{port}")
        return ours

    def answer_query(self, query: str, document: Document) -> None:
        if not self._mouth.is_silent:
            super().answer_query(query, document)

    def _try(self, *command: Any) -> Any:
        return None if self._mouth.is_silent else super()._try(*command)


class _Life:
    """From one start of the machine to the next: a boot id, and all that is in memory."""

    def __init__(
        self, about: Simulated, shared: Shared, disk: dict[str, Any], journal: Journal, faults: Faults
    ) -> None:
        config = AgentConfig(
            about.uuid,
            kind="image_server" if about.role == "image_server" else "host",
            address=about.address,
            redis_password=shared.config.redis_password,
            ticket_key=shared.config.ticket_key,
            hypervisor="fake",
        )
        self.mouth = Mouth(shared.outbox, faults)
        self.link = SimulatedLink(config, self.mouth, shared)
        machine = Machine(about.uuid, config.kind, config, shared.directory / "machines" / about.uuid, self.link)
        machine.clockwork, machine.faults, machine.disk = shared.clockwork, faults, disk
        self.core = Core(
            machine,
            journal,
            self.link,
            self.mouth.put,
            boot_id=str(uuid.uuid4()),
            own={"simulated": lambda: facts(about)},
            pools=shared.pools,
            query_pool=shared.queries,
        )

    def end(self) -> None:
        self.mouth.is_shut = True
        self.core.stop(0.0)


class SimulatedMachine:
    """One machine: its disk and its journal outlive its deaths, its life does not."""

    def __init__(self, about: Simulated, shared: Shared, disk: dict[str, Any]) -> None:
        self.about, self.disk = about, disk
        self.faults = Faults()
        self._shared = shared
        self._journal = Journal(None, about.uuid)
        self._declared = Declared()
        self._lock = threading.RLock()
        self._life: _Life | None = None
        self._door: Door | None = None

    @property
    def is_away(self) -> bool:
        """Nobody hears it, and it hears nobody."""
        return self._life is None or self.faults.fault.silent

    @property
    def machine(self) -> Machine | None:
        """What its drivers stand on; None while it is dead."""
        life = self._life
        return life.core.machine if life else None

    def start(self) -> None:
        """Begin a life, with nothing in memory; it says hello when it is connected."""
        with self._lock:
            if self._life is None:
                self._life = _Life(self.about, self._shared, self.disk, self._journal, self.faults)
                self._life.core.start()

    def stop(self) -> None:
        """End this life: everything in memory is gone."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.end()

    def greet(self, after_s: float = 0.0) -> None:
        """It is connected; it says so after a while, for control hears one hello after the other."""

        def say() -> None:
            if life := self._life:
                life.core.greet()

        self._shared.clockwork.routine(say, name="greeting", first_s=after_s)

    def suffer(self, declared: Declared) -> None:
        """From now on this is wrong with it."""
        before, self._declared = self._declared, declared
        self.faults.fault = declared.fault
        if declared.fault.die and declared.at != before.at:
            log.info("%s dies for %.1f s", self.about.name, declared.fault.die)
            self.stop()
            self._shared.clockwork.routine(self._be_reborn, name="rebirth", first_s=declared.fault.die)
        elif before.fault.silent and not declared.fault.silent:
            self.greet()

    def receive(self, task: str, document: Document, is_bulk: bool) -> None:
        """A message; who is away does not hear it."""
        life = self._life
        if life is not None and not self.is_away:
            life.core.receive(task, document, is_bulk)

    def alive(self) -> tuple[str, str] | None:
        """The sign of life to give now, as key and text."""
        life = self._life
        return None if life is None or self.is_away else life.link.alive(life.core.describe())

    def samples(self) -> list[Sample]:
        """What it measures now."""
        life = self._life
        if life is None or self.is_away:
            return []
        found = [_host_sample(self.about)]
        for name, sample in SAMPLERS.items():
            try:
                found += sample(life.core.machine)
            except Exception:
                log.exception("sampler %s failed", name)
        return found

    def let_in(self, stream: socket.socket) -> None:
        """Serve a stream of a neighbour's."""
        life = self._life
        if life is None:
            stream.close()
            return
        with self._lock:
            if self._door is None:
                self._door = Door(life.core.machine, self._journal, life.link.now)
        self._door.let_in(stream)

    def _be_reborn(self) -> None:
        self.start()
        self.greet()


def facts(about: Simulated) -> Document:
    """The hardware of a simulated machine: `eth0` has its address, `eth1` is there to put networks on."""
    cards = [("eth0", [f"{about.address}/15"]), ("eth1", [])]
    return {
        "hostname": about.name,
        "os_name": "Simulated",
        "kernel": "simulated",
        "architecture": "x86_64",
        "cpu_model": "Simulated",
        "cpu_threads": about.cpu_threads,
        "cpu_cores": about.cpu_threads // 2,
        "memory_bytes": about.memory_bytes,
        "nics": [
            {"name": name, "mac": _mac(about, index), "mtu": 9000, "is_up": True, "addresses": addresses}
            for index, (name, addresses) in enumerate(cards)
        ],
        "versions": {"qemu": "simulated", "agent": version.VERSION},
    }


def _mac(about: Simulated, index: int) -> str:
    digits = uuid.UUID(about.uuid).bytes[-4:]
    return ":".join(f"{byte:02x}" for byte in (2, index, *digits))


def _host_sample(about: Simulated) -> Sample:
    is_server = about.role == "image_server"
    tags = {"image_server" if is_server else "host": about.uuid}
    fields = {"cpu_count": about.cpu_threads, "cpu_used_percent": 10.0, "uptime_seconds": int(time.monotonic())}
    return Sample("mica_image_server" if is_server else "mica_host", tags, fields)
