"""The networks of a Linux host: netlink, network namespaces and dnsmasq behind the driver's contract."""

import socket
import threading
from pathlib import Path

from cloud.common.driver import NotFound, Transient
from network.drivers.base import Failures, NetworkDriver
from network.drivers.linux import bridges, leftovers, namespaces, probe
from network.drivers.linux.dhcp import DhcpServers
from network.drivers.linux.errors import told
from network.drivers.linux.links import Links
from network.messages import DhcpDesired, NetworksDesired, SeenNetworks, namespace_name


class LinuxNetwork(NetworkDriver):
    """Drives the machine it runs on; files lie in `state_dir`/dhcp."""

    def __init__(self, state_dir: Path) -> None:
        # One pass at a time, of either section: both touch the bridges.
        self._lock = threading.RLock()
        self._folder = state_dir / "dhcp"
        self._servers = DhcpServers(self._folder, self._lock)
        self._dhcp: DhcpDesired | None = None
        self._is_replugging = False

    def converge_networks(self, wanted: NetworksDesired) -> list[str]:
        changes: list[str] = []
        failures = Failures()
        with self._lock, Links(changes) as links:
            bridges.converge(links, wanted, failures)
            if (changes or self._is_replugging) and self._dhcp is not None:
                # A bridge that was made anew has lost its ports: DHCP servers and guests are plugged in again now,
                # in this pass or, where that fails, in the next one.
                links.refresh()
                replugging = Failures()
                self._servers.converge(links, self._dhcp, replugging)
                self._is_replugging = bool(replugging)
                failures.add(replugging)
        failures.tell()
        return changes

    def converge_dhcp(self, wanted: DhcpDesired) -> list[str]:
        changes: list[str] = []
        failures = Failures()
        with self._lock, Links(changes) as links:
            self._dhcp = wanted
            self._servers.converge(links, wanted, failures)
        failures.tell()
        return changes

    def probe(self, l2: str, ip: str, timeout_s: float) -> list[str]:
        return probe.claimants(l2, ip, timeout_s)

    def connect(self, l3: str, ip: str, port: int, timeout_s: float) -> socket.socket:
        name = namespace_name(l3)
        if not namespaces.is_alive(name):
            raise NotFound("network_not_here", f"this host has no NIC of the L3 network {l3}")
        try:
            return namespaces.inside(name, socket.create_connection, (ip, port), timeout_s)
        except OSError as error:
            raise Transient("connect_failed", f"{ip} port {port} does not answer: {error}") from error

    def seen(self) -> SeenNetworks:
        with self._lock, Links([]) as links, told("look at the networks"):
            return leftovers.seen(links, self._folder)

    def remove(self, name: str) -> None:
        with self._lock, Links([]) as links:
            leftovers.remove(links, name)
