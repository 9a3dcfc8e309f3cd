"""What of ours is on a Linux host, and taking away what nobody wants."""

import os
from pathlib import Path

from cloud.common.driver import Rejected
from network.drivers.linux import namespaces
from network.drivers.linux.dnsmasq import DhcpServer
from network.drivers.linux.links import Link, Links
from network.messages import (
    BRIDGE_PREFIX,
    NAMESPACE_PREFIX,
    SeenDevice,
    SeenEntry,
    SeenNetworks,
    SeenServer,
    is_ours,
)

_TUN = "/dev/net/tun"


def seen(links: Links, folder: Path) -> SeenNetworks:
    """Every interface, namespace and DHCP server of ours; `folder` is where the servers' files lie."""
    taken = _attached_taps()
    devices = [
        SeenDevice(link.name, link.kind, _is_used(links, link, taken))
        for link in links.by_name.values()
        if is_ours(link.name, link.kind)
    ]
    devices += [SeenDevice(name, "namespace") for name in sorted(namespaces.named(NAMESPACE_PREFIX))]
    servers = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    return SeenNetworks(devices, [_server(entry) for entry in servers])


def remove(links: Links, name: str) -> None:
    """Remove an interface or namespace of ours; absent is fine. Raises Rejected `not_ours`, `in_use`."""
    if not is_ours(name):
        raise Rejected("not_ours", f"{name} is not an interface that this platform makes.")
    if name.startswith(NAMESPACE_PREFIX):
        namespaces.remove(name)
        return
    link = links.by_name.get(name)
    if link is None:
        return
    if not is_ours(name, link.kind):
        raise Rejected("not_ours", f"{name} is a {link.kind or 'network card'}, which this platform does not name so.")
    if _is_used(links, link, _attached_taps()):
        raise Rejected("in_use", f"A guest is behind {name}.")
    links.remove(name)


def _server(folder: Path) -> SeenServer:
    server = DhcpServer(folder.name, folder)
    return SeenServer(folder.name, server.pid is not None, [SeenEntry(mac, ip) for mac, ip in server.entries()])


def _is_used(links: Links, link: Link, taken: set[str]) -> bool:
    """Whether a process holds the tap, or one of the bridge's taps."""
    if link.kind == "tun":
        return link.name in taken
    bridge = link.index if link.name.startswith(BRIDGE_PREFIX) else link.master
    ports = [each.name for each in links.by_name.values() if bridge and each.master == bridge]
    return any(port in taken for port in ports)


def _attached_taps() -> set[str]:
    """Names of the taps that a process has open (proc(5), fdinfo of tun descriptors)."""
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for entry in os.scandir(process / "fd"):
                if os.readlink(entry.path) == _TUN:
                    found |= _interfaces(process / "fdinfo" / entry.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def _interfaces(fdinfo: Path) -> set[str]:
    lines = (line.partition(":") for line in fdinfo.read_text().splitlines())
    return {value.strip() for key, _colon, value in lines if key == "iff"}
