"""The agent side of compute: every message of control's reaches the hypervisor, and what it sees reaches control."""

import asyncio
import threading
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.agent.config import AgentConfig
from cloud.agent.registry import COMMANDS, FACTS, QUERIES, SAMPLERS, STREAMS, Call, Machine, Unlinked
from cloud.common.driver import Aborted, Rejected, Transient, Unsupported
from cloud.common.tickets import Ticket
from cloud.common.wire import Document, Message
from compute.agent import console, handlers, hypervisor
from compute.drivers.fake import FakeHypervisor
from compute.messages import (
    EVENT_TOPIC,
    INVENTORY_TOPIC,
    VNC_VERB,
    CloudInit,
    DomainInventory,
    Domains,
    DomainSpec,
    DomainState,
    GuestInfo,
    GuestReport,
    RebootDomain,
    RemoveDomain,
    StartDomain,
    StopDomain,
)

SPEC = DomainSpec(
    str(uuids.uuid4()), "web", 1, 128 << 20, project="p-1", seed=CloudInit("web-1")
)  # fmt: skip


class Listening(Unlinked):
    """A link whose publications can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._told = threading.Condition()

    def publish(self, topic: str, body: Document) -> None:
        with self._told:
            super().publish(topic, body)
            self._told.notify_all()

    def until(self, condition: Callable[[list[tuple[str, Document]]], Any]) -> bool:
        with self._told:
            return bool(self._told.wait_for(lambda: condition(self.published), 5))


@pytest.fixture
def link() -> Listening:
    return Listening()


@pytest.fixture
def machine(link: Listening, tmp_path: Path) -> Iterator[Machine]:
    made = Machine("host-1", "host", AgentConfig("host-1", hypervisor="fake"), tmp_path, link)
    handlers.begin(made)
    yield made
    made.is_stopping.set()


@pytest.fixture
def fake(machine: Machine) -> FakeHypervisor:
    found = hypervisor.of(machine)
    assert isinstance(found, FakeHypervisor)
    return found


def ask(machine: Machine, message: Message) -> Message | None:
    """As the workshop does: by the message's kind, from its document."""
    handler = COMMANDS[message.kind]
    received = handler.message.from_document(message.to_document())
    return handler.function(received, Call("key", "job", SPEC.uuid, machine))


def test_the_life_of_a_domain(machine: Machine, fake: FakeHypervisor) -> None:
    assert ask(machine, StartDomain(SPEC)) == DomainState(SPEC.uuid, "running")
    assert ask(machine, RebootDomain(SPEC.uuid)) == DomainState(SPEC.uuid, "running")
    assert ask(machine, StopDomain(SPEC.uuid, grace_s=1)) == DomainState(SPEC.uuid, "stopped")
    assert ask(machine, RemoveDomain(SPEC.uuid)) == DomainState(SPEC.uuid, "stopped")
    assert ask(machine, RemoveDomain(SPEC.uuid)) == DomainState(SPEC.uuid, "stopped")
    assert fake.inventory() == ()


def test_power_commands_are_never_behind_bulk_work() -> None:
    kinds = {m.kind for m in (StartDomain, StopDomain, RebootDomain, RemoveDomain)}
    assert not any(COMMANDS[kind].is_bulk for kind in kinds)


def test_what_waits_for_guests_is_not_in_the_way_of_quick_work() -> None:
    assert COMMANDS[StopDomain.kind].is_patient
    assert COMMANDS[RebootDomain.kind].is_patient
    assert not COMMANDS[StartDomain.kind].is_patient


def test_a_cancelled_stop_ends_early(machine: Machine, fake: FakeHypervisor, link: Listening) -> None:
    fake.obeys_power_button = False
    ask(machine, StartDomain(SPEC))
    link.aborted.add("key")
    began = time.monotonic()
    with pytest.raises(Aborted):
        ask(machine, StopDomain(SPEC.uuid, grace_s=60))
    assert time.monotonic() - began < 10
    assert fake.state(SPEC.uuid) == "running"


def test_events_and_inventories_are_told(machine: Machine, fake: FakeHypervisor, link: Listening) -> None:
    assert link.until(lambda told: (INVENTORY_TOPIC, {"domains": [], "cause": "connected"}) in told)
    ask(machine, StartDomain(SPEC))
    fake.crash(SPEC.uuid)
    event = {"uuid": SPEC.uuid, "name": "web", "state": "stopped", "reason": "failed", "is_ours": True}
    assert link.until(lambda told: (EVENT_TOPIC, event) in told)
    fake.disconnect()
    fake.reconnect()
    summary = {"uuid": SPEC.uuid, "name": "web", "state": "stopped", "is_ours": True}
    assert link.until(lambda told: told[-1] == (INVENTORY_TOPIC, {"domains": [summary], "cause": "connected"}))


def test_the_inventory_is_told_again_and_again(
    link: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypervisor, "INVENTORY_EVERY_S", 0.01)
    machine = Machine("host-1", "host", AgentConfig("host-1", hypervisor="fake"), tmp_path, link)
    handlers.begin(machine)
    periodic = (INVENTORY_TOPIC, {"domains": [], "cause": "periodic"})
    assert link.until(lambda told: told.count(periodic) >= 2)
    machine.is_stopping.set()


def test_no_inventory_is_told_of_a_hypervisor_that_does_not_answer(machine: Machine, link: Listening) -> None:
    fake = FakeHypervisor()
    fake.fail_next("inventory", Transient("hypervisor_unreachable", "gone"))
    machine.resources[hypervisor.RESOURCE] = fake
    assert link.until(bool)
    before = list(link.published)
    hypervisor.tell_inventory(machine, "periodic")
    assert link.published == before


def test_queries(machine: Machine) -> None:
    ask(machine, StartDomain(SPEC))
    report = QUERIES[GuestReport.kind].function(GuestReport(SPEC.uuid), machine)
    assert report == GuestInfo(True, "web-1", (), "Simulated")
    inventory = QUERIES[Domains.kind].function(Domains(), machine)
    assert isinstance(inventory, DomainInventory)
    assert [domain.uuid for domain in inventory.domains] == [SPEC.uuid]


def test_samples_and_facts(machine: Machine) -> None:
    ask(machine, StartDomain(SPEC))
    (sample,) = [function for name, function in SAMPLERS.items() if name.startswith("compute.")]
    assert "cpu_used_percent" not in sample(machine)[0].fields, "there is nothing to compare with yet"
    again = sample(machine)[0]
    assert again.measurement == "mica_instance"
    assert again.tags == {"instance": SPEC.uuid, "project": "p-1", "host": "host-1"}
    assert "cpu_used_percent" in again.fields
    (facts,) = [function for name, function in FACTS.items() if name.startswith("compute.")]
    assert facts(machine)["hypervisor"] == "fake"
    assert facts(machine)["kvm"] is False


def test_a_machine_without_hypervisor(tmp_path: Path) -> None:
    server = Machine("s-1", "image_server", AgentConfig("s-1", "image_server"), tmp_path)
    handlers.begin(server)
    assert handlers.facts(server) == {}
    assert handlers.sample(server) == []
    with pytest.raises(Unsupported) as refused:
        ask(server, StartDomain(SPEC))
    assert refused.value.code == "no_hypervisor"


def test_a_driver_that_is_not_there(tmp_path: Path) -> None:
    config = AgentConfig("h", hypervisor="xen")  # type: ignore[arg-type]
    with pytest.raises(Unsupported) as refused:
        handlers.begin(Machine("h", "host", config, tmp_path))
    assert refused.value.code == "no_such_hypervisor"


class Caller:
    """The other end of a stream."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.received = b""
        self.writer: Any = self
        self.wrote = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.received += data
        self.wrote.set()

    async def drain(self) -> None:
        """Always room."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"RFB 003.008\n")
    while data := await reader.read(100):
        writer.write(data.upper())
    writer.write(b"BYE")
    writer.close()


def test_a_console_carries_bytes_both_ways(tmp_path: Path) -> None:
    async def run() -> bytes:
        path = tmp_path / "vnc.sock"
        async with await asyncio.start_unix_server(echo, path):
            caller = Caller()
            caller.reader.feed_data(b"hello")
            bridging = asyncio.create_task(console.bridge(path, caller.reader, caller.writer))
            async with asyncio.timeout(5):
                while b"HELLO" not in caller.received:
                    caller.wrote.clear()
                    await caller.wrote.wait()
                caller.reader.feed_eof()
                await bridging
            return caller.received

    assert asyncio.run(run()).startswith(b"RFB 003.008\nHELLO")


def test_a_console_that_is_not_there(tmp_path: Path) -> None:
    async def run() -> None:
        caller = Caller()
        await console.bridge(tmp_path / "none.sock", caller.reader, caller.writer)

    with pytest.raises(Transient) as refused:
        asyncio.run(run())
    assert refused.value.code == "console_unreachable"


def test_a_console_needs_a_running_domain(machine: Machine) -> None:
    class Stopped(FakeHypervisor):
        def vnc_socket(self, uuid: str) -> Path:
            raise Rejected("domain_not_running", "It does not run.")

    async def run() -> None:
        caller = Caller()
        await STREAMS[VNC_VERB](Ticket("host-1", VNC_VERB, SPEC.uuid), caller.reader, caller.writer, machine)

    machine.resources[hypervisor.RESOURCE] = Stopped()
    with pytest.raises(Rejected):
        asyncio.run(run())
