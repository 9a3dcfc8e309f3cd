"""A host's networks in memory: what the contract says, without a kernel. For simulated hosts and tests."""

import socket
from pathlib import Path

from cloud.common.driver import DriverError, NotFound, Transient
from network.drivers.base import Failures, NetworkDriver
from network.messages import BridgeSpec, DhcpDesired, DhcpNetwork, NetworksDesired


class FakeNetwork(NetworkDriver):
    """`bridges` and `servers` are what the machine has, by uuid; a test may take them away to see them mended.

    `failing` maps a network's uuid to the error it should fail with, `answering` an (l2, ip) to the MACs that claim it.
    """

    def __init__(self, state_dir: Path | None = None) -> None:
        self.bridges: dict[str, BridgeSpec] = {}
        self.servers: dict[str, DhcpNetwork] = {}
        self.failing: dict[str, DriverError] = {}
        self.answering: dict[tuple[str, str], list[str]] = {}

    def converge_networks(self, wanted: NetworksDesired) -> list[str]:
        changes, failures = [], Failures()
        specs = {spec.l2: spec for spec in wanted.bridges}
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
        changes, failures = [], Failures()
        networks = {network.l3: network for network in wanted.networks}
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
