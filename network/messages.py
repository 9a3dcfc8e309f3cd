"""What control says to a host about its networks, and what the host answers. Standard library only.

The sections `networks` and `dhcp` are desired state: the whole of what a host should have, never a change.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from cloud.common.wire import Message

# An interface name has at most 15 characters (IFNAMSIZ), a uuid 32: the first digits of it are what names are made of.
BRIDGE_PREFIX = "mb-"
VLAN_PREFIX = "vl-"
VXLAN_PREFIX = "vx-"
DHCP_PORT_PREFIX = "dh-"
TAP_PREFIX = "mt-"
NAMESPACE_PREFIX = "l3-"
VXLAN_OVERHEAD_BYTES = 50
TCP_VERB = "network.tcp"
# Who takes an interface away (`cloud.infra.messages.Thing`).
DEVICE_KEEPER = "network.device"


def bridge_name(l2: str) -> str:
    """The bridge of an L2 network on every host that has it."""
    return BRIDGE_PREFIX + _digits(l2, 11)


def vlan_name(l2: str) -> str:
    """The tagged interface of a VLAN network."""
    return VLAN_PREFIX + _digits(l2, 11)


def vxlan_name(vni: int) -> str:
    return f"{VXLAN_PREFIX}{vni}"


def namespace_name(l3: str) -> str:
    """The network namespace that holds an L3 network's DHCP server on a host."""
    return NAMESPACE_PREFIX + _digits(l3, 12)


def dhcp_port_name(l3: str) -> str:
    """The bridge's end of the cable into that namespace."""
    return DHCP_PORT_PREFIX + _digits(l3, 12)


def tap_name(nic: str) -> str:
    """The host's end of an instance's NIC, made and plugged in by the hypervisor."""
    return TAP_PREFIX + _digits(nic, 11)


def dhcp_mac(l3: str) -> str:
    """The MAC address of an L3 network's DHCP server, the same on every host; its first byte tells it from a NIC's."""
    digits = _digits(l3, 10)
    return ":".join(["f6", *(digits[at : at + 2] for at in range(0, 10, 2))])


_OURS = {
    BRIDGE_PREFIX: "bridge",
    VLAN_PREFIX: "vlan",
    VXLAN_PREFIX: "vxlan",
    DHCP_PORT_PREFIX: "veth",
    TAP_PREFIX: "tun",
    NAMESPACE_PREFIX: "namespace",
}


def is_ours(name: str, kind: str = "") -> bool:
    """Whether this is a name that we give to an interface of this kind, or to a namespace; "" for any kind."""
    ours = next((of for prefix, of in _OURS.items() if name.startswith(prefix)), None)
    return ours is not None and kind in ("", ours)


def _digits(uuid: str, count: int) -> str:
    return uuid.replace("-", "").lower()[:count]


@dataclass(frozen=True)
class BridgeSpec(Message):
    """An L2 network on a host: its bridge and what connects it to the other hosts.

    `l2` is the network's uuid, `mtu` in bytes. `uplink` is `physical` (the interface itself is a port), `vlan` (tagged
    with `vlan_id` on the interface) or `vxlan` (`vni` between the address `local` and the VTEPs `peers`).
    """

    l2: str
    mtu: int
    uplink: str
    interface: str = ""
    vlan_id: int = 0
    vni: int = 0
    local: str = ""
    peers: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return bridge_name(self.l2)

    @property
    def port(self) -> str:
        """The interface that is the bridge's uplink."""
        if self.uplink == "vxlan":
            return vxlan_name(self.vni)
        return vlan_name(self.l2) if self.uplink == "vlan" else self.interface


@dataclass(frozen=True)
class NetworksDesired(Message):
    """Section `networks`: every L2 network attached to the host's cluster that the host can carry."""

    bridges: list[BridgeSpec] = field(default_factory=list)


@dataclass(frozen=True)
class DhcpHost(Message):
    """A NIC placed on the host, known to the DHCP server. `nic` is its uuid, `hostname` a single DNS label."""

    nic: str
    mac: str
    ip: str
    hostname: str


@dataclass(frozen=True)
class Route(Message):
    """A route a guest learns (RFC 3442): `destination` in CIDR form, `via` an address."""

    destination: str
    via: str


@dataclass(frozen=True)
class DhcpNetwork(Message):
    """An L3 network's DHCP server on a host: it answers the NICs placed there and nobody else.

    `l3` and `l2` are uuids; `address`/`prefix` the server's own; `mtu` in bytes; `lease_s` seconds.
    """

    l3: str
    l2: str
    address: str
    prefix: int
    mtu: int
    gateway: str = ""
    dns: list[str] = field(default_factory=list)
    domain: str = ""
    routes: list[Route] = field(default_factory=list)
    lease_s: int = 86400
    hosts: list[DhcpHost] = field(default_factory=list)


@dataclass(frozen=True)
class DhcpDesired(Message):
    """Section `dhcp`: one server for each L3 network that has a NIC on the host."""

    networks: list[DhcpNetwork] = field(default_factory=list)


@dataclass(frozen=True)
class ProbeAddress(Message):
    """Query: does anybody on this L2 network answer for the address? (RFC 5227 §2.1.1: an ARP probe)"""

    kind: ClassVar[str] = "network.probe_address"

    l2: str
    ip: str
    timeout_s: float = 1.0


@dataclass(frozen=True)
class ProbedAddress(Message):
    """Answer: the MAC addresses that claimed the address; none when the wire was silent."""

    macs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NicAttachment(Message):
    """How an instance's NIC is plugged in, part of a domain's description.

    `gateway`, `dns`, `hostname` and `prefix` are for guests whose network is written into their seed.
    """

    uuid: str
    mac: str
    bridge: str
    mtu: int
    address: str
    prefix: int
    gateway: str
    dns: list[str]
    hostname: str
    l3: str


@dataclass(frozen=True)
class SeenDevice(Message):
    """An interface of ours by its name, or (`namespace`) a network namespace. `is_used`: a guest is behind it."""

    name: str
    type: str
    is_used: bool = False


@dataclass(frozen=True)
class SeenEntry(Message):
    """A NIC that a DHCP server on the host knows."""

    mac: str
    ip: str


@dataclass(frozen=True)
class SeenServer(Message):
    """A DHCP server on the host, of the L3 network `l3`."""

    l3: str
    is_running: bool
    hosts: list[SeenEntry] = field(default_factory=list)


@dataclass(frozen=True)
class SeenNetworks(Message):
    """Everything of ours that a host has of networks, wanted or not."""

    devices: list[SeenDevice] = field(default_factory=list)
    servers: list[SeenServer] = field(default_factory=list)
