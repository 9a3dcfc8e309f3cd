"""Interfaces by netlink: one look at all of them, and the few acts the networks are made of."""

import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute

from network.drivers.linux.errors import told

_ALL_ZEROES = "00:00:00:00:00:00"
_IPV6_ADDRESS_MODE_NONE = 1
Changes = dict[str, Any]


@dataclass(frozen=True)
class Link:
    """What the kernel says of an interface. `data` are the attributes of its kind, without their prefix."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    is_up: bool
    master: int
    is_isolated: bool
    is_ipv6_quiet: bool
    data: dict[str, Any] = field(default_factory=dict)


class Links:
    """The interfaces of the network namespace that the calling thread is in; a context manager.

    `log` collects each change in words.
    """

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __enter__(self) -> Self:
        with told("open netlink"):
            self._route = IPRoute()
        self.refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._route.close()

    def refresh(self) -> None:
        """Look at all interfaces anew."""
        with told("list interfaces"):
            self.by_name = {link.name: link for link in map(_read, self._route.get_links())}

    def add(self, name: str, kind: str, **options: Any) -> Link:
        """Make an interface and return it."""
        with told(f"make the {kind} interface {name}"):
            self._route.link("add", ifname=name, kind=kind, **options)
        self.log.append(f"made {name}")
        return self._look(name)

    def change(self, link: Link, **changes: Any) -> None:
        """Change an interface where it differs: `mtu`, `master` (index), `is_up`, `is_isolated`, `is_ipv6_quiet`."""
        differing = {name: value for name, value in changes.items() if getattr(link, name) != value}
        if not differing:
            return
        with told(f"change {link.name}"):
            # A port first, then its flags; up comes last so that no packet passes before all is set.
            if "master" in differing:
                self._route.link("set", index=link.index, master=differing["master"])
            if "mtu" in differing:
                self._route.link("set", index=link.index, mtu=differing["mtu"])
            if "is_ipv6_quiet" in differing:
                self._route.link("set", index=link.index, **_ipv6_quiet())
            if "is_isolated" in differing or ("master" in differing and changes.get("is_isolated")):
                self._route.brport("set", index=link.index, isolated=int(changes["is_isolated"]))
            if "is_up" in differing:
                self._route.link("set", index=link.index, state="up" if differing["is_up"] else "down")
        self.log.append(f"changed {link.name}: {', '.join(sorted(differing))}")
        self._look(link.name)

    def configure(self, link: Link, kind: str, **options: Any) -> None:
        """Change the options of an interface's kind."""
        with told(f"configure {link.name}"):
            self._route.link("set", index=link.index, kind=kind, **options)
        self.log.append(f"configured {link.name}")
        self._look(link.name)

    def remove(self, name: str) -> None:
        """Remove an interface; absent is fine."""
        link = self.by_name.pop(name, None)
        if link is None:
            return
        with told(f"remove {name}"):
            self._route.link("del", index=link.index)
        self.log.append(f"removed {name}")

    def flood_peers(self, link: Link) -> set[str]:
        """Where a VXLAN interface sends what it has no address for: its head-end replication list."""
        with told(f"read the peers of {link.name}"):
            entries = self._route.get_neighbours(family=socket.AF_BRIDGE, ifindex=link.index)
            return {
                entry.get("dst")
                for entry in entries
                if entry["ifindex"] == link.index and entry.get("lladdr") == _ALL_ZEROES and entry.get("dst")
            }

    def set_flood_peers(self, link: Link, wanted: set[str]) -> None:
        """Make the list equal to `wanted`; addresses learnt from a peer that left go as well."""
        held = self.flood_peers(link)
        with told(f"set the peers of {link.name}"):
            for peer in sorted(wanted - held):
                self._route.fdb("append", ifindex=link.index, lladdr=_ALL_ZEROES, dst=peer)
            for peer in sorted(held - wanted):
                self._route.fdb("del", ifindex=link.index, lladdr=_ALL_ZEROES, dst=peer)
        if held != wanted:
            self.log.append(f"changed the peers of {link.name}")

    def addresses(self, link: Link, family: int = socket.AF_INET) -> set[str]:
        """The addresses of an interface in CIDR form."""
        with told(f"read the addresses of {link.name}"):
            found = self._route.get_addr(index=link.index, family=family)
            return {f"{entry.get('IFA_LOCAL') or entry.get('IFA_ADDRESS')}/{entry['prefixlen']}" for entry in found}

    def set_addresses(self, link: Link, wanted: set[str]) -> None:
        """Make the IPv4 addresses of an interface equal to `wanted` (CIDR form)."""
        held = self.addresses(link)
        with told(f"set the addresses of {link.name}"):
            for cidr in sorted(held - wanted):
                self._route.addr("del", index=link.index, **_address(cidr))
            for cidr in sorted(wanted - held):
                self._route.addr("add", index=link.index, **_address(cidr))
        if held != wanted:
            self.log.append(f"changed the addresses of {link.name}")

    def local_addresses(self) -> set[str]:
        """All IPv4 addresses of the machine, without prefix."""
        with told("read addresses"):
            return {entry.get("IFA_LOCAL") for entry in self._route.get_addr(family=socket.AF_INET)}

    def _look(self, name: str) -> Link:
        with told(f"look at {name}"):
            link = _read(next(iter(self._route.link("get", ifname=name))))
        self.by_name[name] = link
        return link


def _ipv6_quiet() -> Changes:
    # A bridge port must not speak for itself: no link-local address, no router solicitation into the tenants' network.
    mode = [("IFLA_INET6_ADDR_GEN_MODE", _IPV6_ADDRESS_MODE_NONE)]
    return {"IFLA_AF_SPEC": {"attrs": [("AF_INET6", {"attrs": mode})]}}


def _address(cidr: str) -> Changes:
    address, _, prefix = cidr.partition("/")
    return {"address": address, "prefixlen": int(prefix)}


def _read(message: Any) -> Link:
    info = message.get("linkinfo")
    data = info.get("data") if info else None
    port = info.get("slave_data") if info and info.get("slave_kind") == "bridge" else None
    ipv6 = (message.get("af_spec") or {}).get("AF_INET6") if message.get("af_spec") else None
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        kind=(info.get("kind") or "") if info else "",
        mac=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        is_up=message.get("state") == "up",
        master=message.get("master") or 0,
        is_isolated=bool(port and port.get("IFLA_BRPORT_ISOLATED")),
        is_ipv6_quiet=not ipv6 or ipv6.get("IFLA_INET6_ADDR_GEN_MODE") == _IPV6_ADDRESS_MODE_NONE,
        data={name: value for name, value in data["attrs"] if isinstance(name, str)}
        if data and "attrs" in data
        else {},
    )
