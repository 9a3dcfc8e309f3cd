"""A host's networks in memory: what the contract says, without a kernel. For simulated hosts and tests."""

import socket
from pathlib import Path

from cloud.common.driver import DriverError, NotFound, Rejected, Transient
from cloud.common.faults import Faults
from network.drivers.base import Failures, NetworkDriver
from network.messages import (
    VXLAN_PREFIX,
    BridgeSpec,
    DhcpDesired,
    DhcpNetwork,
    NetworksDesired,
    SeenDevice,
    SeenEntry,
    SeenNetworks,
    SeenServer,
    dhcp_port_name,
    is_ours,
    namespace_name,
)


class FakeNetwork(NetworkDriver):
    """`bridges` and `servers` are what the machine has, by uuid; a test may take them away to see them mended.

    `strays` are devices of ours by name that no network made; a pass takes them away as it does on Linux, but for taps.
    `failing` maps a network's uuid to the error it should fail with, `answering` an (l2, ip) to the MACs that claim it.
    """

    def __init__(self, state_dir: Path | None = None, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.bridges: dict[str, BridgeSpec] = {}
        self.servers: dict[str, DhcpNetwork] = {}
        self.strays: dict[str, SeenDevice] = {}
        self.failing: dict[str, DriverError] = {}
        self.answering: dict[tuple[str, str], list[str]] = {}

    def converge_networks(self, wanted: NetworksDesired) -> list[str]:
        changes: list[str] = []
        failures = Failures()
        self.faults.strike("the networks")
        specs = {spec.l2: spec for spec in wanted.bridges}
        changes += self._drop_strays("bridge", "vxlan", "vlan")
        for gone in self.bridges.keys() - specs.keys():
            del self.bridges[gone]
            changes.append(f"removed {gone}")
        for l2, spec in specs.items():
            with failures.of(l2):
                if l2 in self.failing:
                    raise self.failing[l2]
                if self.bridges.get(l2) != spec:
                    self.bridges[l2] = spec
                    changes.append(f"converged {l2}")
        failures.tell()
        return changes

    def converge_dhcp(self, wanted: DhcpDesired) -> list[str]:
        changes: list[str] = []
        failures = Failures()
        self.faults.strike("the DHCP servers")
        networks = {network.l3: network for network in wanted.networks}
        changes += self._drop_strays("veth", "namespace")
        for gone in self.servers.keys() - networks.keys():
            del self.servers[gone]
            changes.append(f"removed {gone}")
        for l3, network in networks.items():
            with failures.of(l3):
                if l3 in self.failing:
                    raise self.failing[l3]
                if network.l2 not in self.bridges:
                    raise Transient("bridge_missing", f"the bridge of the L2 network {network.l2} is not there")
                if self.servers.get(l3) != network:
                    self.servers[l3] = network
                    changes.append(f"converged {l3}")
        failures.tell()
        return changes

    def probe(self, l2: str, ip: str, timeout_s: float) -> list[str]:
        if l2 not in self.bridges:
            raise NotFound("network_not_here", "this host does not have the L2 network")
        return self.answering.get((l2, ip), [])

    def connect(self, l3: str, ip: str, port: int, timeout_s: float) -> socket.socket:
        if l3 not in self.servers:
            raise NotFound("network_not_here", "this host does not have the L3 network")
        raise Transient("connect_failed", f"{ip} port {port} does not answer")

    def seen(self) -> SeenNetworks:
        devices = list(self.strays.values())
        for spec in self.bridges.values():
            devices.append(SeenDevice(spec.name, "bridge"))
            if spec.uplink != "physical":
                devices.append(SeenDevice(spec.port, "vxlan" if spec.port.startswith(VXLAN_PREFIX) else "vlan"))
        for l3 in self.servers:
            devices += [SeenDevice(dhcp_port_name(l3), "veth"), SeenDevice(namespace_name(l3), "namespace")]
        servers = [
            SeenServer(l3, True, [SeenEntry(host.mac, host.ip) for host in network.hosts])
            for l3, network in self.servers.items()
        ]
        return SeenNetworks(devices, servers)

    def remove(self, name: str) -> None:
        found = next((device for device in self.seen().devices if device.name == name), None)
        if not is_ours(name, found.type if found else ""):
            raise Rejected("not_ours", f"{name} is not an interface that this platform makes.")
        if found is not None and found.is_used:
            raise Rejected("in_use", f"A guest is behind {name}.")
        self.strays.pop(name, None)
        self.bridges = {l2: spec for l2, spec in self.bridges.items() if name not in (spec.name, spec.port)}

    def _drop_strays(self, *kinds: str) -> list[str]:
        gone = [device.name for device in self.strays.values() if device.type in kinds and not device.is_used]
        for name in gone:
            del self.strays[name]
        return [f"removed {name}" for name in gone]
