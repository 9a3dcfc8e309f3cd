"""A hypervisor in memory: the contract by example, and the machine behind tests and simulated hosts.

What a test may do to it, beyond the contract: `crash`, `add_foreign`, `disconnect`, `reconnect`, `fail_next`, and the
attributes `delay_s` (every call takes that long) and `obeys_power_button` (guests that do not must be forced).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cloud.agent.clockwork import Clockwork
from cloud.common.driver import DriverError, Rejected, Transient
from cloud.common.faults import Faults
from compute.drivers.base import (
    Capabilities,
    ConnectListener,
    DiskStats,
    DomainStats,
    EventListener,
    Hypervisor,
    NicStats,
    Watch,
    domain_not_found,
    not_set_aside,
    unwatched,
)
from compute.drivers.dispatch import Dispatcher
from compute.drivers.patience import Pulse
from compute.messages import AsideDomain, DomainEvent, DomainSpec, DomainSummary, GuestInfo, PowerState

# What is asked for by commands; looking is never struck.
STRUCK = frozenset({"start", "stop", "reboot", "remove"})


@dataclass
class _Domain:
    spec: DomainSpec
    state: PowerState = "stopped"
    is_ours: bool = True
    since: float = field(default_factory=time.monotonic)

    def is_off(self) -> bool:
        return self.state == "stopped"


class FakeHypervisor(Hypervisor):
    """Domains are entries of a dictionary. An event and its change are one: nobody sees one without the other."""

    capabilities = Capabilities(has_guest_agent=True, has_block_stats=True)

    def __init__(self, clockwork: Clockwork | None = None, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.delay_s = 0.0
        self.obeys_power_button = True
        self._domains: dict[str, _Domain] = {}
        self._aside: dict[str, tuple[AsideDomain, _Domain]] = {}
        self._failures: dict[str, DriverError] = {}
        self._is_connected = True
        self._lock = threading.RLock()
        self._pulse = Pulse()
        self._dispatcher = Dispatcher("fake-hypervisor", clockwork)
        self._is_open = False

    def open(self, *, on_event: EventListener, on_connect: ConnectListener) -> None:
        self._on_event, self._on_connect = on_event, on_connect
        self._dispatcher.start()
        self._is_open = True
        self._dispatcher.put(on_connect)

    def in_order(self, function: Callable[[], None]) -> None:
        self._dispatcher.put(function)

    def close(self) -> None:
        self._is_open = False
        self._dispatcher.stop()

    def start(self, spec: DomainSpec) -> PowerState:
        with self._acting("start"):
            domain = self._ours(spec.uuid) or _Domain(spec)
            if domain.state == "running":
                return "running"
            if spec.cpu < 1 or spec.memory_bytes < 1024:
                raise Rejected("invalid_size", "A domain needs at least one CPU and a KiB of memory.")
            was_off = domain.state in ("stopped", "crashed")
            if was_off:
                domain.spec = spec
            self._domains[spec.uuid] = domain
            self._become(domain, "running", "booted" if was_off else "resumed")
            return "running"

    def stop(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        with self._acting("stop"):
            domain = self._ours(uuid)
            if domain is None or domain.state == "stopped":
                return "stopped"
            if not is_forced and self.obeys_power_button and domain.state == "running":
                self._become(domain, "stopped", "shutdown")
                return "stopped"
        if not is_forced:
            self._pulse.wait_until(domain.is_off, time.monotonic() + grace_s, watch)
        with self._lock:
            if not domain.is_off():
                self._become(domain, "stopped", "destroyed")
        return "stopped"

    def reboot(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        with self._acting("reboot"):
            domain = self._ours(uuid)
            if domain is None:
                raise domain_not_found(uuid)
            if domain.state != "running":
                raise Rejected("domain_not_running", "The virtual machine does not run, so it cannot be restarted.")
        if not is_forced and not self.obeys_power_button:
            self._pulse.wait_until(lambda: False, time.monotonic() + grace_s, watch)
        with self._lock:
            domain.since = time.monotonic()
        return "running"

    def remove(self, uuid: str) -> None:
        with self._acting("remove"):
            domain = self._ours(uuid)
            if domain is None:
                return
            if domain.state != "stopped":
                self._become(domain, "stopped", "destroyed")
            del self._domains[uuid]
            self._tell(domain, "undefined")

    def set_aside(self, id: str, uuid: str) -> None:
        with self._acting("set_aside"):
            if id in self._aside:
                return
            domain = self._ours(uuid)
            if domain is None:
                raise domain_not_found(uuid)
            if domain.state != "stopped":
                self._become(domain, "stopped", "destroyed")
            del self._domains[uuid]
            self._aside[id] = (AsideDomain(id, uuid, domain.spec.name, time.time()), domain)
            self._tell(domain, "undefined")

    def put_back(self, id: str) -> None:
        with self._acting("put_back"):
            if id not in self._aside:
                raise not_set_aside(id)
            about, domain = self._aside[id]
            if about.uuid in self._domains:
                raise Rejected("domain_exists", f"There is a domain {about.uuid} on this host.")
            self._domains[about.uuid] = domain
            del self._aside[id]

    def purge(self, id: str) -> None:
        with self._acting("purge"):
            self._aside.pop(id, None)

    def aside(self) -> tuple[AsideDomain, ...]:
        with self._acting("aside"):
            return tuple(about for about, _domain in self._aside.values())

    def state(self, uuid: str) -> PowerState:
        with self._acting("state"):
            domain = self._domains.get(uuid)
            if domain is None:
                raise domain_not_found(uuid)
            return domain.state

    def inventory(self) -> tuple[DomainSummary, ...]:
        with self._acting("inventory"):
            return tuple(
                DomainSummary(uuid, domain.spec.name, domain.state, domain.is_ours)
                for uuid, domain in sorted(self._domains.items())
            )

    def stats(self) -> tuple[DomainStats, ...]:
        with self._acting("stats"):
            running = [d for d in self._domains.values() if d.is_ours and d.state == "running"]
            return tuple(_stats(domain) for domain in running)

    def facts(self) -> dict[str, object]:
        return {"hypervisor": "fake", "kvm": False, "kvm_why": "This host is simulated."}

    def guest_info(self, uuid: str) -> GuestInfo:
        with self._acting("guest_info"):
            domain = self._ours(uuid)
            if domain is None:
                raise domain_not_found(uuid)
            if domain.state != "running":
                return GuestInfo(agent_answers=False)
            seed = domain.spec.seed
            addresses = tuple(nic.address for nic in domain.spec.nics if nic.address)
            return GuestInfo(True, seed.hostname if seed else domain.spec.name, addresses, "Simulated")

    def crash(self, uuid: str) -> None:
        """The process of the domain dies behind everybody's back."""
        with self._lock:
            self._become(self._domains[uuid], "stopped", "failed")

    def add_foreign(self, uuid: str, name: str) -> None:
        """A running domain that Mica did not define appears."""
        with self._lock:
            domain = _Domain(DomainSpec(uuid, name, 1, 1024), is_ours=False)
            self._domains[uuid] = domain
            self._become(domain, "running", "booted")

    def fail_next(self, method: str, error: DriverError) -> None:
        """The next call of `method` raises `error` instead of doing anything."""
        with self._lock:
            self._failures[method] = error

    def disconnect(self) -> None:
        """Every call is refused and no event is told until `reconnect`; domains live on."""
        with self._lock:
            self._is_connected = False

    def reconnect(self) -> None:
        with self._lock:
            self._is_connected = True
            if self._is_open:
                self._dispatcher.put(self._on_connect)

    @contextmanager
    def _acting(self, method: str) -> Iterator[None]:
        if self.delay_s:
            # Sleeping is what a slow hypervisor is.
            time.sleep(self.delay_s)
        if method in STRUCK:
            self.faults.strike(f"{method} of a domain")
        with self._lock:
            if not self._is_connected:
                raise Transient("hypervisor_unreachable", "The simulated hypervisor is disconnected.")
            if failure := self._failures.pop(method, None):
                raise failure
            yield

    def _ours(self, uuid: str) -> _Domain | None:
        domain = self._domains.get(uuid)
        if domain is not None and not domain.is_ours:
            detail = f"The domain {domain.spec.name} was not made by Mica: it is left alone."
            raise Rejected("domain_not_ours", detail)
        return domain

    def _become(self, domain: _Domain, state: PowerState, reason: str) -> None:
        domain.state, domain.since = state, time.monotonic()
        self._tell(domain, reason)

    def _tell(self, domain: _Domain, reason: str) -> None:
        self._pulse.beat()
        if self._is_open and self._is_connected:
            event = DomainEvent(domain.spec.uuid, domain.spec.name, domain.state, reason, domain.is_ours)
            self._dispatcher.put(lambda: self._on_event(event))


def _stats(domain: _Domain) -> DomainStats:
    """Numbers that grow with the time the domain runs: a tenth of a core, a KiB a second everywhere."""
    spec = domain.spec
    uptime = time.monotonic() - domain.since
    busy, count = uptime / 10, int(uptime)
    disks = tuple(
        DiskStats(f"vd{chr(97 + n)}", count * 1024, count, count * 1024, count) for n in range(len(spec.volumes))
    )
    nics = tuple(NicStats(n.uuid, count * 1024, count, 0, count * 1024, count, 0) for n in spec.nics)
    return DomainStats(
        uuid=spec.uuid,
        project=spec.project,
        cpu_count=spec.cpu,
        cpu_seconds=busy,
        vcpu_seconds=dict.fromkeys(range(spec.cpu), busy / spec.cpu),
        memory_total_bytes=spec.memory_bytes,
        memory_free_bytes=spec.memory_bytes // 2,
        memory_resident_bytes=spec.memory_bytes,
        disks=disks,
        nics=nics,
    )
