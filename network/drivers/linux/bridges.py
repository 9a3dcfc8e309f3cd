"""L2 networks on a Linux host: a bridge each, with the uplink that joins it to the same bridge on other hosts.

The uplink port is isolated, as is the DHCP server's: the kernel never forwards between two isolated ports, so a server
is heard by the guests of its own host only, though every host has one with the same address.
"""

import logging
import os
import socket

from cloud.common.driver import NotFound, Rejected, Unsupported
from network.drivers.base import Failures
from network.drivers.linux.links import Link, Links
from network.messages import (
    BRIDGE_PREFIX,
    TAP_PREFIX,
    VLAN_PREFIX,
    VXLAN_PREFIX,
    BridgeSpec,
    NetworksDesired,
    bridge_name,
)

log = logging.getLogger(__name__)

VXLAN_PORT = 4789  # IANA's, RFC 7348
_BRIDGE_OPTIONS = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}


def converge(links: Links, wanted: NetworksDesired, failures: Failures) -> None:
    """Make the machine's bridges and uplinks what is wanted."""
    _remove_others(links, wanted, failures)
    for spec in wanted.bridges:
        with failures.of(spec.l2):
            bridge = ensure_bridge(links, spec.l2, spec.mtu)
            _plug_in(links, bridge, _ensure_uplink(links, spec), spec)


def ensure_bridge(links: Links, l2: str, mtu: int, *, is_mtu_certain: bool = True) -> Link:
    """The bridge of the L2 network, made when it is missing.

    `is_mtu_certain` False leaves the MTU of an existing bridge alone: a guest network's own may be smaller.
    """
    name = bridge_name(l2)
    bridge = links.by_name.get(name)
    if bridge is None:
        # With a MAC address of its own a bridge keeps it when ports come and go; it differs on every host.
        bridge = links.add(name, "bridge", mtu=mtu, address=_random_mac(), **_BRIDGE_OPTIONS)
    elif any(bridge.data.get(f"IFLA_{option.upper()}") != value for option, value in _BRIDGE_OPTIONS.items()):
        # One by one: the kernel takes no forward delay of 0 while STP is on.
        for option, value in _BRIDGE_OPTIONS.items():
            links.configure(bridge, "bridge", **{option: value})
    links.change(bridge, mtu=mtu if is_mtu_certain else bridge.mtu, is_ipv6_quiet=True, is_up=True)
    return links.by_name[name]


def _plug_in(links: Links, bridge: Link, uplink: Link, spec: BridgeSpec) -> None:
    links.change(uplink, master=bridge.index, is_isolated=True, is_ipv6_quiet=True, is_up=True)
    # A smaller port would have shrunk a bridge that was made without an MTU of its own.
    links.change(links.by_name[bridge.name], mtu=spec.mtu)


def _ensure_uplink(links: Links, spec: BridgeSpec) -> Link:
    if spec.uplink == "vxlan":
        return _ensure_vxlan(links, spec)
    if spec.uplink == "vlan":
        return _ensure_vlan(links, spec)
    if spec.uplink == "physical":
        return _ensure_free(links, _interface(links, spec), spec)
    raise Unsupported("uplink_unknown", f"this agent does not know uplinks of the kind {spec.uplink}")


def _ensure_vxlan(links: Links, spec: BridgeSpec) -> Link:
    link = links.by_name.get(spec.port)
    if link is not None and not _is_as_wanted(link, spec):
        links.remove(link.name)
        link = None
    if link is None:
        if spec.local not in links.local_addresses():
            raise Rejected("vtep_address_missing", f"no interface of this host has the VTEP address {spec.local}")
        link = links.add(
            spec.port,
            "vxlan",
            vxlan_id=spec.vni,
            vxlan_local=spec.local,
            vxlan_port=VXLAN_PORT,
            vxlan_learning=1,
            mtu=spec.mtu,
        )
    links.change(link, mtu=spec.mtu)
    link = links.by_name[spec.port]
    links.set_flood_peers(link, set(spec.peers))
    return link


def _is_as_wanted(link: Link, spec: BridgeSpec) -> bool:
    data = link.data
    return (
        link.kind == "vxlan"
        and data.get("IFLA_VXLAN_ID") == spec.vni
        and data.get("IFLA_VXLAN_LOCAL") == spec.local
        and data.get("IFLA_VXLAN_PORT") == VXLAN_PORT
    )


def _ensure_vlan(links: Links, spec: BridgeSpec) -> Link:
    below = _interface(links, spec)
    link = links.by_name.get(spec.port)
    if link is not None and (link.kind != "vlan" or link.data.get("IFLA_VLAN_ID") != spec.vlan_id):
        links.remove(link.name)
        link = None
    if link is None:
        try:
            link = links.add(spec.port, "vlan", link=below.index, vlan_id=spec.vlan_id)
        except Unsupported as error:
            raise Unsupported(
                "vlan_unsupported",
                f"this kernel has no 802.1Q support (module 8021q): {spec.interface} cannot carry VLAN {spec.vlan_id}",
            ) from error
    if not below.is_up:
        links.change(below, is_up=True)
    return link


def _interface(links: Links, spec: BridgeSpec) -> Link:
    link = links.by_name.get(spec.interface)
    if link is None:
        raise NotFound("interface_missing", f"this host has no network interface {spec.interface}")
    if link.mtu < spec.mtu:
        raise Rejected(
            "interface_mtu_too_small",
            f"the MTU of {spec.interface} is {link.mtu}, less than the network's {spec.mtu}",
        )
    return link


def _ensure_free(links: Links, link: Link, spec: BridgeSpec) -> Link:
    # As a port the interface would lose its addresses' traffic: the host could cut itself off from control.
    if links.addresses(link, socket.AF_INET):
        raise Rejected("interface_in_use", f"{spec.interface} has addresses of this host; give it to the network alone")
    master = next((each for each in links.by_name.values() if each.index == link.master), None)
    if master is not None and not master.name.startswith(BRIDGE_PREFIX):
        raise Rejected("interface_in_use", f"{spec.interface} is a port of {master.name} already")
    return link


def _remove_others(links: Links, wanted: NetworksDesired, failures: Failures) -> None:
    """Remove bridges and uplinks of ours that are not wanted; a bridge that guests are plugged into stays."""
    bridges = {spec.name for spec in wanted.bridges}
    uplinks = {spec.port for spec in wanted.bridges}
    in_use = set()
    for link in [each for each in links.by_name.values() if _is_ours(each, BRIDGE_PREFIX, "bridge")]:
        if link.name in bridges:
            continue
        ports = [each.name for each in links.by_name.values() if each.master == link.index]
        guests = [port for port in ports if _is_guest(links, port)]
        if guests:
            log.warning("bridge_kept bridge=%s is not wanted, but guests are plugged in: %s", link.name, guests)
            in_use.update(ports)
            continue
        with failures.of(link.name):
            links.remove(link.name)
    for link in list(links.by_name.values()):
        ours = _is_ours(link, VXLAN_PREFIX, "vxlan") or _is_ours(link, VLAN_PREFIX, "vlan")
        if ours and link.name not in uplinks and link.name not in in_use:
            with failures.of(link.name):
                links.remove(link.name)


def _is_ours(link: Link, prefix: str, kind: str) -> bool:
    return link.name.startswith(prefix) and link.kind == kind


def _is_guest(links: Links, port: str) -> bool:
    return port.startswith(TAP_PREFIX) or links.by_name[port].kind == "tun"


def _random_mac() -> str:
    # Locally administered, one address (IEEE 802-2014 §8.4).
    return ":".join(["f2", *(f"{byte:02x}" for byte in os.urandom(5))])
