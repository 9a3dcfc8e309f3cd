"""What control asks of a host about its virtual machines, and what the host tells back.

Standard library only. A domain is the hypervisor's view of an instance: both have the same uuid. Commands are effect
once by their key, and each of them is also idempotent by itself. Sizes are bytes, times are seconds.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cloud.common.wire import SECRET, Message

PowerState = Literal["running", "paused", "stopped", "crashed", "suspended", "unknown"]
Machine = Literal["pc", "q35"]
BootDevice = Literal["disk", "cdrom", "network"]

EVENT_TOPIC = "compute.domain_event"
HOST_GOES_DOWN = "host_goes_down"
INVENTORY_TOPIC = "compute.inventory"

# Who takes a domain out of the way (`cloud.infra.messages.Thing`).
DOMAIN_KEEPER = "compute.domain"

VNC_VERB = "compute.vnc"
SERIAL_VERB = "compute.serial"


@dataclass(frozen=True)
class DomainVolume(Message):
    """A disk of a domain; takes the document of `storage.messages.VolumeSource`. The first one is the root volume.

    `path` is a file or block device on the host. `serial` is what the guest reads as the disk's serial number; empty
    stands for the first 20 characters of the uuid. The limits are what the disk may do a second; 0: as much as it can.
    """

    uuid: str
    path: str
    format: str = "qcow2"
    size_bytes: int = 0
    serial: str = ""
    is_shareable: bool = False
    is_read_only: bool = False
    read_iops: int = 0
    write_iops: int = 0
    read_bytes_per_s: int = 0
    write_bytes_per_s: int = 0


@dataclass(frozen=True)
class DomainNic(Message):
    """A network card of a domain; takes the document of `network.messages.NicAttachment`.

    `bridge` is there before the domain starts (the section "networks" is held). Address, prefix, gateway and dns are
    used for the seed only, and only where the seed's network is `static`.
    """

    uuid: str
    mac: str
    bridge: str
    mtu: int = 1500
    address: str = ""
    prefix: int = 24
    gateway: str = ""
    dns: tuple[str, ...] = ()


@dataclass(frozen=True)
class CloudInit(Message):
    """First-boot data, given to the guest on a NoCloud disk (label `cidata`).

    `user_data` goes to the guest as it is: `#cloud-config`, a script, or empty. `password` is root's, plain or as a
    crypt(3) hash. `network` is `dhcp`, or `static` to write each NIC's address into the network configuration.
    """

    hostname: str
    ssh_keys: tuple[str, ...] = ()
    password: str = field(default="", repr=False, metadata=SECRET)
    user_data: str = field(default="", repr=False, metadata=SECRET)
    network: Literal["dhcp", "static"] = "dhcp"


@dataclass(frozen=True)
class DomainSpec(Message):
    """Everything a host needs to run an instance. How it is virtualised (KVM or emulation) the driver decides.

    `options` are switches of a hypervisor (`cpu_mode`: auto, host-model or host-passthrough); unknown ones are
    ignored.
    """

    uuid: str
    name: str
    cpu: int
    memory_bytes: int
    project: str = ""
    volumes: tuple[DomainVolume, ...] = ()
    nics: tuple[DomainNic, ...] = ()
    seed: CloudInit | None = None
    boot: tuple[BootDevice, ...] = ("disk",)
    machine: Machine = "pc"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DomainState(Message):
    """The state of one domain; `stopped` also for one the hypervisor does not know. Answer of the power commands."""

    uuid: str
    state: PowerState


@dataclass(frozen=True)
class StartDomain(Message):
    """Define the domain and switch it on. Success when it runs already. Answer: DomainState."""

    kind: ClassVar[str] = "compute.start_domain"
    spec: DomainSpec


@dataclass(frozen=True)
class StopDomain(Message):
    """Switch the domain off: guest agent, then ACPI, then by force after `grace_s`; `is_forced` at once.

    Success when it is off or absent. Answer: DomainState.
    """

    kind: ClassVar[str] = "compute.stop_domain"
    uuid: str
    is_forced: bool = False
    grace_s: float = 60.0


@dataclass(frozen=True)
class RebootDomain(Message):
    """Restart the guest: agent or ACPI, by force after `grace_s`; `is_forced` at once. Answer: DomainState.

    Fails with not_found when there is no such domain, rejected (`domain_not_running`) when it does not run.
    """

    kind: ClassVar[str] = "compute.reboot_domain"
    uuid: str
    is_forced: bool = False
    grace_s: float = 60.0


@dataclass(frozen=True)
class RemoveDomain(Message):
    """Switch the domain off by force and forget it, with its seed, NVRAM and sockets; absent is fine.

    Volumes stay. Answer: DomainState.
    """

    kind: ClassVar[str] = "compute.remove_domain"
    uuid: str


@dataclass(frozen=True)
class GuestReport(Message):
    """Query: what the guest's agent says. Answer: GuestInfo."""

    kind: ClassVar[str] = "compute.guest_report"
    uuid: str


@dataclass(frozen=True)
class GuestInfo(Message):
    """What the guest says of itself; empty where `agent_answers` is false.

    `addresses` are the guest's own, without loopback and link-local ones; `os` is the pretty name of the system.
    """

    agent_answers: bool
    hostname: str = ""
    addresses: tuple[str, ...] = ()
    os: str = ""


@dataclass(frozen=True)
class Domains(Message):
    """Query: all domains of the host, unknown ones too. Answer: DomainInventory."""

    kind: ClassVar[str] = "compute.domains"


@dataclass(frozen=True)
class DomainSummary(Message):
    """A domain in an inventory. `is_ours` is false for one that Mica did not define: it is listed, never touched."""

    uuid: str
    name: str
    state: PowerState
    is_ours: bool


@dataclass(frozen=True)
class AsideDomain(Message):
    """A domain in the quarantine of a host: its description and seed are kept there as `id` since `at` (epoch)."""

    id: str
    uuid: str
    name: str
    at: float


@dataclass(frozen=True)
class DomainInventory(Message):
    """Body of the observation INVENTORY_TOPIC and answer of Domains: every domain the hypervisor knows.

    `cause` says why it was sent: `connected` (agent or hypervisor daemon started) or `periodic`; empty in an answer.
    """

    domains: tuple[DomainSummary, ...]
    cause: str = ""


@dataclass(frozen=True)
class DomainEvent(Message):
    """Body of the observation EVENT_TOPIC: a domain's state changed.

    `reason` is a word of the hypervisor's in lower snake case: `booted`, `resumed`, `shutdown` (the guest switched
    itself off), `destroyed` (somebody pulled the plug), `crashed` (the guest panicked), `failed` (its process died),
    `io_error` (paused, a disk is full or gone), `undefined`, …; HOST_GOES_DOWN for whatever stops with its host.
    """

    uuid: str
    name: str
    state: PowerState
    reason: str
    is_ours: bool = True
