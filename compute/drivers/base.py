"""The contract of a hypervisor: what the agent needs of whatever runs virtual machines.

`compute.drivers.fake` is the specification by example, `tests/contract/test_hypervisor.py` the one suite that every
driver passes. A driver raises `cloud.common.driver` errors and nothing else, knows nothing of jobs, and never touches
a domain that Mica did not define. All methods may be called from many threads; they block.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloud.common.driver import NotFound, Unsupported
from compute.messages import AsideDomain, DomainEvent, DomainSpec, DomainSummary, GuestInfo, PowerState

EventListener = Callable[[DomainEvent], None]
ConnectListener = Callable[[], None]
Watch = Callable[[], None]
"""Called at least each second by what takes long; it raises (Aborted, mostly) to make it stop."""


def unwatched() -> None:
    """The watch of one who waits to the end."""


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do beyond switching domains on and off; false unless it says otherwise."""

    has_vnc: bool = False
    has_serial: bool = False
    has_guest_agent: bool = False
    has_seed: bool = False
    has_block_stats: bool = False


@dataclass(frozen=True)
class DiskStats:
    """Counters of a disk since the domain started; `device` is the target, as `vda`."""

    device: str
    read_bytes: int = 0
    read_ops: int = 0
    write_bytes: int = 0
    write_ops: int = 0


@dataclass(frozen=True)
class NicStats:
    """Counters of a network card as the guest sees them: `in` is what it received. `nic` is its uuid, else the tap."""

    nic: str
    in_bytes: int = 0
    in_packets: int = 0
    in_errors: int = 0
    out_bytes: int = 0
    out_packets: int = 0
    out_errors: int = 0


@dataclass(frozen=True)
class DomainStats:
    """Raw numbers of one running domain of ours. Times are seconds of CPU since it started; None: not known now.

    `memory_free_bytes` is what the guest calls usable; None until its balloon driver reports.
    """

    uuid: str
    project: str
    cpu_count: int | None = None
    cpu_seconds: float | None = None
    vcpu_seconds: Mapping[int, float] = field(default_factory=dict)
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_resident_bytes: int | None = None
    disks: tuple[DiskStats, ...] = ()
    nics: tuple[NicStats, ...] = ()


class Hypervisor(ABC):
    """One machine's hypervisor. Listeners are called from one thread of the driver, in order, and must be quick."""

    capabilities = Capabilities()

    @abstractmethod
    def open(self, *, on_event: EventListener, on_connect: ConnectListener) -> None:
        """Connect and stay connected until `close`; returns at once, whether the hypervisor answers or not.

        `on_event` hears every change of a domain's state, `on_connect` each (re)connection: what happened in between
        is found by an inventory only.
        """

    @abstractmethod
    def in_order(self, function: Callable[[], None]) -> None:
        """Run `function` on the listeners' thread: after the events so far, before those to come."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection and all threads. Domains run on. Twice is fine."""

    @abstractmethod
    def start(self, spec: DomainSpec) -> PowerState:
        """Define the domain as `spec` says and switch it on; one that runs already is left as it is.

        Raises Rejected for what the user can mend (a file that is not there, no memory), `domain_not_ours` for a
        foreign domain with this uuid.
        """

    @abstractmethod
    def stop(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        """Switch a domain off: ask the guest, then pull the plug after `grace_s`. Off or absent is success."""

    @abstractmethod
    def reboot(
        self, uuid: str, *, is_forced: bool = False, grace_s: float = 60.0, watch: Watch = unwatched
    ) -> PowerState:
        """Restart the guest; by force after `grace_s`.

        Raises NotFound, and Rejected (`domain_not_running`) when it does not run.
        """

    @abstractmethod
    def remove(self, uuid: str) -> None:
        """Switch off by force, forget the domain and delete all its files but volumes. Absent is success."""

    @abstractmethod
    def state(self, uuid: str) -> PowerState:
        """The domain's state. Raises NotFound."""

    @abstractmethod
    def inventory(self) -> tuple[DomainSummary, ...]:
        """Every domain there is, foreign ones too, by uuid."""

    @abstractmethod
    def stats(self) -> tuple[DomainStats, ...]:
        """Numbers of all running domains of ours, in one call to the hypervisor. Never waits for a busy domain."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What control should know of this hypervisor: `hypervisor`, versions, `kvm` and `kvm_why`."""

    @abstractmethod
    def set_aside(self, id: str, uuid: str) -> None:
        """Switch a domain of ours off by force and forget it; its description and seed are kept as `id`, a uuid.

        Done already is success. Raises NotFound when there is no such domain, Rejected (`domain_not_ours`).
        """

    @abstractmethod
    def put_back(self, id: str) -> None:
        """Define a domain that was set aside again; it stays off. Raises NotFound, Rejected (`domain_exists`)."""

    @abstractmethod
    def purge(self, id: str) -> None:
        """Forget a domain that was set aside for good; absent is success."""

    @abstractmethod
    def aside(self) -> tuple[AsideDomain, ...]:
        """The domains that were set aside."""

    def vnc_socket(self, uuid: str) -> Path:
        """The unix socket of a running domain's VNC server. Raises NotFound, Rejected, Unsupported."""
        raise Unsupported("no_vnc", "This hypervisor has no graphical console.")

    def serial_socket(self, uuid: str) -> Path:
        """The unix socket of a running domain's serial console, for one reader. Raises like `vnc_socket`."""
        raise Unsupported("no_serial", "This hypervisor has no serial console.")

    def guest_info(self, uuid: str) -> GuestInfo:
        """What the guest's agent says, within 5 seconds. Raises NotFound when there is no such domain."""
        self.state(uuid)
        return GuestInfo(agent_answers=False)


def not_set_aside(id: str) -> NotFound:
    """The error all drivers raise for a domain that the quarantine does not have."""
    return NotFound("not_in_quarantine", f"The quarantine of this host holds no domain as {id}.")


def domain_not_found(uuid: str) -> NotFound:
    """The error all drivers raise for a domain that is not there."""
    return NotFound("domain_not_found", f"There is no domain {uuid} on this host.")
