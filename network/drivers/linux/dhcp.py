"""DHCP on a Linux host: for each L3 network a namespace with one cable into the bridge, and dnsmasq inside."""

import logging
import threading
import time
from pathlib import Path

from cloud.common.driver import DriverError, NotFound
from network.drivers.base import Failures
from network.drivers.linux import namespaces
from network.drivers.linux.bridges import ensure_bridge
from network.drivers.linux.dnsmasq import INTERFACE, DhcpServer
from network.drivers.linux.links import Link, Links
from network.drivers.linux.processes import DeathWatch
from network.messages import (
    DHCP_PORT_PREFIX,
    NAMESPACE_PREFIX,
    DhcpDesired,
    DhcpNetwork,
    dhcp_mac,
    dhcp_port_name,
    namespace_name,
    tap_name,
)

log = logging.getLogger(__name__)

# A server that dies again so soon is left to the next pass, which comes within the minute.
REVIVED_AGAIN_AFTER_S = 10.0


class DhcpServers:
    """All DHCP servers of the host; their files lie in `folder`/<uuid of the L3 network>."""

    def __init__(self, folder: Path, lock: threading.RLock) -> None:
        self._folder = folder
        self._lock = lock
        self._deaths = DeathWatch(self._revive)
        self._revived_at: dict[str, float] = {}

    def converge(self, links: Links, wanted: DhcpDesired, failures: Failures) -> None:
        """Make the machine's DHCP servers what is wanted."""
        self._remove_others(links, wanted, failures)
        for network in wanted.networks:
            with failures.of(network.l3):
                bridge = ensure_bridge(links, network.l2, network.mtu, is_mtu_certain=False)
                _ensure_cable(links, bridge, network)
                _plug_guests_in(links, bridge, network)
                server = DhcpServer(network.l3, self._folder / network.l3)
                links.log += server.converge(network)
                self._deaths.watch(network.l3, server.pid)

    def _remove_others(self, links: Links, wanted: DhcpDesired, failures: Failures) -> None:
        l3s = {network.l3 for network in wanted.networks}
        known = {entry.name for entry in self._folder.iterdir()} if self._folder.is_dir() else set()
        for l3 in known - l3s:
            self._deaths.watch(l3, None)
            self._revived_at.pop(l3, None)
            with failures.of(l3):
                DhcpServer(l3, self._folder / l3).remove()
                links.log.append(f"removed dhcp {l3}")
        ports = {dhcp_port_name(l3) for l3 in l3s}
        for name in [name for name in links.by_name if name.startswith(DHCP_PORT_PREFIX)]:
            if name not in ports and links.by_name[name].kind == "veth":
                with failures.of(name):
                    links.remove(name)
        for name in namespaces.named(NAMESPACE_PREFIX) - {namespace_name(l3) for l3 in l3s}:
            with failures.of(name):
                namespaces.remove(name)
                links.log.append(f"removed {name}")

    def _revive(self, l3: str) -> None:
        """A server died by itself: start it again at once. When that fails, the next pass tells why."""
        with self._lock:
            server = DhcpServer(l3, self._folder / l3)
            if not server.folder.is_dir() or server.pid:
                return
            since = time.monotonic() - self._revived_at.get(l3, -REVIVED_AGAIN_AFTER_S)
            if since < REVIVED_AGAIN_AFTER_S:
                log.warning("dhcp_dies_often l3=%s", l3)
                return
            self._revived_at[l3] = time.monotonic()
            try:
                server.start()
            except DriverError as error:
                log.warning("dhcp_not_revived l3=%s code=%s %s", l3, error.code, error.detail)
                return
            log.warning("dhcp_revived l3=%s", l3)
            self._deaths.watch(l3, server.pid)


def _ensure_cable(links: Links, bridge: Link, network: DhcpNetwork) -> None:
    namespace, name = namespace_name(network.l3), dhcp_port_name(network.l3)
    if not namespaces.is_alive(namespace):
        links.remove(name)
        namespaces.make(namespace)
        links.log.append(f"made {namespace}")
    if name in links.by_name and not namespaces.inside(namespace, _is_wired):
        links.remove(name)
    if name not in links.by_name:
        peer = {"ifname": INTERFACE, "address": dhcp_mac(network.l3), "net_ns_fd": namespace}
        links.add(name, "veth", mtu=network.mtu, peer=peer)
    port = links.by_name[name]
    links.change(port, master=bridge.index, mtu=network.mtu, is_isolated=True, is_ipv6_quiet=True, is_up=True)
    links.log += namespaces.inside(namespace, _settle_inside, network)


def _is_wired() -> bool:
    with Links([]) as links:
        return INTERFACE in links.by_name


def _settle_inside(network: DhcpNetwork) -> list[str]:
    changes: list[str] = []
    with Links(changes) as links:
        link = links.by_name.get(INTERFACE)
        if link is None:
            raise NotFound("dhcp_port_missing", f"the namespace of {network.l3} has no interface")
        links.change(link, mtu=network.mtu, is_ipv6_quiet=True, is_up=True)
        links.set_addresses(links.by_name[INTERFACE], {f"{network.address}/{network.prefix}"})
    return changes


def _plug_guests_in(links: Links, bridge: Link, network: DhcpNetwork) -> None:
    """Put back NICs of running guests that hang loose, as after a bridge was deleted by hand."""
    for host in network.hosts:
        tap = links.by_name.get(tap_name(host.nic))
        if tap is not None and not tap.master:
            links.change(tap, master=bridge.index)
