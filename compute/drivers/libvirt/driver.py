"""The hypervisor contract on libvirt and QEMU.

Domains are persistent and named by their uuid. Whether they run under KVM is decided here, by a probe. With the URI
`test:///default` it runs on libvirt's own mock, for tests.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt

from cloud.common.driver import DriverError, NotFound, Rejected, Transient
from compute.drivers.base import (
    Capabilities,
    ConnectListener,
    DomainStats,
    EventListener,
    Hypervisor,
    Watch,
    domain_not_found,
    unwatched,
)
from compute.drivers.dispatch import Dispatcher
from compute.drivers.libvirt import domain_xml, domains, guest, lifecycle, power, stats
from compute.drivers.libvirt.connection import Connection
from compute.drivers.libvirt.errors import translate, translated
from compute.drivers.libvirt.host import HostFiles, canonical, emulator, qemu_user
from compute.drivers.libvirt.kvm import Finding, KvmProbe, version
from compute.drivers.libvirt.marks import Marks
from compute.drivers.libvirt.quarantine import DomainQuarantine
from compute.drivers.patience import Pulse
from compute.messages import AsideDomain, DomainEvent, DomainSpec, DomainSummary, GuestInfo, PowerState

SYSTEM_URI = "qemu:///system"
_STATS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_RUNNING_NOW = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_WITH_ALL_IT_HAS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class LibvirtHypervisor(Hypervisor):
    """`state_dir` holds seeds and the KVM finding, `run_dir` the sockets of consoles."""

    capabilities = Capabilities(
        has_vnc=True, has_serial=True, has_guest_agent=True, has_seed=True, has_block_stats=True
    )

    def __init__(self, state_dir: Path, run_dir: Path, uri: str = SYSTEM_URI) -> None:
        self._is_mock = uri.startswith("test:")
        if self._is_mock:
            self.capabilities = Capabilities()
        self._files = HostFiles(state_dir, run_dir)
        self._quarantine = DomainQuarantine(state_dir, self._files)
        self._cache = state_dir / "kvm.json"
        self._probe: KvmProbe | None = None
        self._emulator = ""
        self._connection = Connection(uri, self._prepare)
        self._dispatcher = Dispatcher("libvirt-dispatch")
        self._marks = Marks()
        self._pulse = Pulse()
        self._restarts: Counter[str] = Counter()

    def open(self, *, on_event: EventListener, on_connect: ConnectListener) -> None:
        self._on_event, self._on_connect = on_event, on_connect
        self._dispatcher.start()
        self._connection.start()

    def in_order(self, function: Callable[[], None]) -> None:
        self._dispatcher.put(function)

    def close(self) -> None:
        self._connection.close()
        self._dispatcher.stop()

    def start(self, spec: DomainSpec) -> PowerState:
        uuid = canonical(spec.uuid)
        with self._calls() as connection:
            domain = domains.find_ours(connection, uuid, self._marks)
            if domain is not None and domains.wake(domain) == "running":
                return "running"
            self._create(connection, spec, is_new=domain is None)
            return "running"

    def stop(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        with self._calls() as connection:
            domain = domains.find_ours(connection, canonical(uuid), self._marks)
            if domain is None or power.is_off(domain):
                return "stopped"
            if is_forced or not power.shut_down(domain, grace_s, self._pulse, watch):
                power.force_off(domain)
            return "stopped"

    def reboot(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        uuid = canonical(uuid)
        with self._calls() as connection:
            domain = domains.get_ours(connection, uuid, self._marks)
            if power.is_off(domain):
                raise Rejected("domain_not_running", "The virtual machine does not run, so it cannot be restarted.")
            graceful = functools.partial(
                power.restart, domain, grace_s, lambda: self._restarts[uuid], self._pulse, watch
            )
            if is_forced or not graceful():
                domain.reset(0)
            if power.is_off(domain):
                domain.create()
            return "running"

    def remove(self, uuid: str) -> None:
        uuid = canonical(uuid)
        with self._calls() as connection:
            domain = domains.find_ours(connection, uuid, self._marks)
            if domain is not None:
                power.force_off(domain)
                self._undefine(domain)
            self._files.remove(uuid)
            self._restarts.pop(uuid, None)

    def set_aside(self, id: str, uuid: str) -> None:
        uuid = canonical(uuid)
        with self._calls() as connection:
            domain = domains.find_ours(connection, uuid, self._marks)
            if domain is None and self._quarantine.has(id):
                return
            if domain is None:
                raise domain_not_found(uuid)
            if not self._quarantine.has(id):
                mark = self._marks.of(domain)
                name = mark.name if mark else domain.name()
                flags = libvirt.VIR_DOMAIN_XML_INACTIVE | (0 if self._is_mock else libvirt.VIR_DOMAIN_XML_SECURE)
                self._quarantine.keep(id, uuid, name, domain.XMLDesc(flags))
        self.remove(uuid)

    def put_back(self, id: str) -> None:
        with self._calls() as connection:
            xml = self._quarantine.xml(id)
            uuid = self._quarantine.uuid(id)
            if domains.find(connection, uuid) is not None:
                raise Rejected("domain_exists", f"There is a domain {uuid} on this host.")
            self._quarantine.give_seed_back(id)
            self._marks.refresh(connection.defineXML(xml))
        self._quarantine.forget(id)

    def purge(self, id: str) -> None:
        self._quarantine.forget(id)

    def aside(self) -> tuple[AsideDomain, ...]:
        return self._quarantine.domains()

    def state(self, uuid: str) -> PowerState:
        with self._calls() as connection:
            domain = domains.find(connection, canonical(uuid))
            if domain is None:
                raise domain_not_found(uuid)
            return domains.state(domain)

    def inventory(self) -> tuple[DomainSummary, ...]:
        with self._calls() as connection:
            found = (domains.summary(domain, self._marks) for domain in connection.listAllDomains(0))
            return tuple(sorted((s for s in found if s is not None), key=lambda summary: summary.uuid))

    def stats(self) -> tuple[DomainStats, ...]:
        with self._calls() as connection:
            flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING if self._is_mock else _RUNNING_NOW
            found = []
            for domain, record in connection.getAllDomainStats(0 if self._is_mock else _STATS, flags):
                if mark := self._marks.of(domain):
                    found.append(stats.parse(domain.UUIDString(), record, mark))
            return tuple(found)

    def facts(self) -> dict[str, object]:
        found: dict[str, object] = {"hypervisor": "libvirt"}
        try:
            connection = self._connection.get(patience_s=2.0)
            with translated():
                found["libvirt"] = _dotted(connection.getLibVersion())
        except Transient as error:
            return {**found, "hypervisor_error": error.detail}
        if not self._is_mock:
            finding = self._kvm()
            found |= {"qemu": version(self._emulator), "kvm": finding.is_usable, "kvm_why": finding.why}
        return found

    def vnc_socket(self, uuid: str) -> Path:
        return self._socket_of(uuid, self._files.vnc(canonical(uuid)))

    def serial_socket(self, uuid: str) -> Path:
        return self._socket_of(uuid, self._files.serial(canonical(uuid)))

    def guest_info(self, uuid: str) -> GuestInfo:
        with self._calls() as connection:
            return guest.info(domains.get_ours(connection, canonical(uuid), self._marks))

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        """The connection, for calls whose errors come out as the contract's."""
        connection = self._connection.get()
        with translated():
            yield connection

    def _prepare(self, connection: Any) -> None:
        capabilities = connection.getCapabilities()
        self._files.give_to(qemu_user(capabilities))
        self._emulator = emulator(capabilities)
        if self._probe is None:
            self._probe = KvmProbe(self._emulator, self._cache)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_restart, None)
        self._marks.clear()
        self._dispatcher.put(self._connected)

    def _connected(self) -> None:
        self._pulse.beat()
        self._on_connect()

    def _on_lifecycle(self, connection: Any, domain: Any, number: int, detail: int, opaque: object) -> None:
        self._dispatcher.put(functools.partial(self._heard, domain, number, detail))

    def _on_restart(self, connection: Any, domain: Any, opaque: object) -> None:
        self._restarts[domain.UUIDString()] += 1
        self._pulse.beat()

    def _heard(self, domain: Any, number: int, detail: int) -> None:
        uuid = domain.UUIDString()
        if number == lifecycle.DEFINED:
            self._marks.refresh(domain)
        told = lifecycle.event(number, detail)
        if told:
            self._pulse.beat()
            state, reason = told
            mark = self._marks.of(domain)
            name = mark.name if mark else domain.name()
            self._on_event(DomainEvent(uuid, name, state, reason, is_ours=mark is not None))
        if number == lifecycle.UNDEFINED:
            self._marks.forget(uuid)

    def _create(self, connection: Any, spec: DomainSpec, *, is_new: bool) -> None:
        """Define and switch on; a new domain for which that fails is forgotten again."""
        virt: domain_xml.VirtType = "test" if self._is_mock else "kvm" if self._kvm().is_usable else "qemu"
        domain = None
        try:
            place = self._files.prepare(spec, virt)
            domain = connection.defineXMLFlags(domain_xml.build(spec, place), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            self._marks.refresh(domain)
            domain.create()
        except (libvirt.libvirtError, DriverError):
            if is_new:
                self._take_back(spec.uuid, domain)
            raise

    def _take_back(self, uuid: str, domain: Any) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            if domain is not None and domain.isActive():
                return  # it runs all the same: control takes it from here
            if domain is not None:
                self._undefine(domain)
            self._files.remove(uuid)

    def _undefine(self, domain: Any) -> None:
        try:
            domain.undefineFlags(0 if self._is_mock else _WITH_ALL_IT_HAS)
        except libvirt.libvirtError as error:
            if not isinstance(translate(error), NotFound):
                raise

    def _socket_of(self, uuid: str, socket: Path) -> Path:
        with self._calls() as connection:
            if power.is_off(domains.get_ours(connection, canonical(uuid), self._marks)):
                raise Rejected("domain_not_running", "The virtual machine does not run, so it has no console.")
        return socket

    def _kvm(self) -> Finding:
        if self._probe is None:
            raise Transient("hypervisor_unreachable", "libvirt was not reached yet.")
        return self._probe.finding()


def _dotted(number: int) -> str:
    """libvirt's version number as people write it: 9000000 is 9.0.0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
