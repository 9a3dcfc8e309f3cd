"""Hypervisors to hold against the contract, each with what a test does to it from outside."""

import contextlib
import os
import signal
import time
import uuid as uuids
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from cloud.common.driver import Transient
from compute.drivers.base import Hypervisor
from compute.drivers.fake import FakeHypervisor
from compute.drivers.libvirt import boot_sector
from compute.drivers.libvirt.driver import LibvirtHypervisor
from compute.drivers.patience import Pulse
from compute.messages import DomainEvent, DomainSpec, DomainVolume
from tests.contract.libvirt_machine import LibvirtMachine

PATIENCE_S = 15.0
MIB = 1024 * 1024
FOREIGN_XML = """<domain type='{kind}'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory>
<os><type>hvm</type></os></domain>"""


class World(ABC):
    """An open hypervisor and what it told so far."""

    can_restart = True
    can_lose_its_connection = True
    can_crash = True

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self.events: list[DomainEvent] = []
        self.connects = 0
        self._pulse = Pulse()
        hypervisor.open(on_event=self._heard, on_connect=self._connected)
        assert self.eventually(lambda: self.connects == 1)

    def eventually(self, condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> bool:
        """Whether the condition comes true in time, looked at when something is told (or each second)."""
        return self._pulse.wait_until(condition, time.monotonic() + limit_s)

    def heard(self, uuid: str) -> list[tuple[str, str]]:
        """States and reasons told of a domain, in order."""
        return [(event.state, event.reason) for event in self.events if event.uuid == uuid]

    def spec(self, name: str = "web", **changes: object) -> DomainSpec:
        """A small domain that ignores the power button."""
        return DomainSpec(
            **{"uuid": str(uuids.uuid4()), "name": name, "cpu": 1, "memory_bytes": 32 * MIB} | changes  # type: ignore[arg-type]
        )

    def close(self) -> None:
        with contextlib.suppress(Transient):  # a test closed it
            for domain in self.hypervisor.inventory():
                if domain.is_ours:
                    self.hypervisor.remove(domain.uuid)
        self.hypervisor.close()

    @abstractmethod
    def add_foreign(self, name: str) -> str:
        """A running domain that somebody else made; its uuid."""

    def crash(self, uuid: str) -> None:
        """The domain dies by itself."""
        raise NotImplementedError

    def lose_connection(self) -> None:
        """The hypervisor's daemon goes away and comes back; domains live on."""
        raise NotImplementedError

    @abstractmethod
    def ignore_power_button(self) -> None:
        """From now on no guest switches itself off."""

    def _heard(self, event: DomainEvent) -> None:
        self.events.append(event)
        self._pulse.beat()

    def _connected(self) -> None:
        self.connects += 1
        self._pulse.beat()


class FakeWorld(World):
    """The in-memory driver: the specification."""

    def __init__(self) -> None:
        self.fake = FakeHypervisor()
        super().__init__(self.fake)

    def add_foreign(self, name: str) -> str:
        uuid = str(uuids.uuid4())
        self.fake.add_foreign(uuid, name)
        return uuid

    def crash(self, uuid: str) -> None:
        self.fake.crash(uuid)

    def lose_connection(self) -> None:
        self.fake.disconnect()
        self.fake.reconnect()

    def ignore_power_button(self) -> None:
        self.fake.obeys_power_button = False


class MockWorld(World):
    """The libvirt driver on libvirt's own mock, which knows power operations only."""

    can_restart = False
    can_lose_its_connection = False
    can_crash = False

    def __init__(self, folder: Path) -> None:
        self._outer = libvirt.open("test:///default")
        super().__init__(LibvirtHypervisor(folder / "state", folder / "run", "test:///default"))

    def add_foreign(self, name: str) -> str:
        uuid = str(uuids.uuid4())
        self._foreign = self._outer.createXML(FOREIGN_XML.format(kind="test", name=name, uuid=uuid), 0)
        return uuid

    def ignore_power_button(self) -> None:
        pytest.skip("every guest of the mock obeys")

    def close(self) -> None:
        super().close()
        if hasattr(self, "_foreign"):
            self._foreign.destroy()
        self._outer.close()


class LibvirtWorld(World):
    """The libvirt driver on real libvirtd and QEMU. The guest, a boot sector that halts, obeys nobody."""

    def __init__(self, machine: LibvirtMachine, folder: Path) -> None:
        self.machine = machine
        self._foreign: list[str] = []
        self._disk = machine.folder / "volumes" / f"{uuids.uuid4()}.raw"
        self._disk.write_bytes(boot_sector.image())
        # Sockets have short paths; the finding about KVM is shared by all tests.
        super().__init__(LibvirtHypervisor(machine.folder / "state", machine.folder / "r", machine.uri))

    def spec(self, name: str = "web", **changes: object) -> DomainSpec:
        volume = DomainVolume(str(uuids.uuid4()), str(self._disk), "raw", is_shareable=True)
        return super().spec(name, **{"volumes": (volume,)} | changes)

    def add_foreign(self, name: str) -> str:
        uuid = str(uuids.uuid4())
        connection = libvirt.open(self.machine.uri)
        connection.createXML(FOREIGN_XML.format(kind="qemu", name=name, uuid=uuid), 0)
        connection.close()
        self._foreign.append(uuid)
        return uuid

    def crash(self, uuid: str) -> None:
        os.kill(self.machine.qemu_pid(uuid), signal.SIGKILL)

    def lose_connection(self) -> None:
        self.machine.kill_daemon()

    def ignore_power_button(self) -> None:
        """A boot sector knows none."""

    def close(self) -> None:
        super().close()
        connection = libvirt.open(self.machine.uri)
        for uuid in self._foreign:
            connection.lookupByUUIDString(uuid).destroy()
        connection.close()
