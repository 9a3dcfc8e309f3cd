"""Asking the wire who has an address: an ARP probe (RFC 5227 §2.1.1), which no cache is filled with."""

import ipaddress
import socket
import struct
import time

from cloud.common.driver import NotFound, Rejected
from network.drivers.linux.errors import told
from network.messages import bridge_name

_ETHERTYPE_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ARP_REQUEST, _ARP_REPLY = 1, 2
_PROBES = 3
_HEADER = "!HHBBH"


def claimants(l2: str, ip: str, timeout_s: float) -> list[str]:
    """The MAC addresses that answer for the address on the L2 network, sorted; waits the whole time when none does.

    The question goes out from the bridge itself: the DHCP server's port is isolated from the other hosts.
    """
    try:
        target = ipaddress.IPv4Address(ip).packed
    except ValueError as error:
        raise Rejected("not_an_address", f"{ip!r} is not an IPv4 address") from error
    bridge = bridge_name(l2)
    try:
        socket.if_nametoindex(bridge)
    except OSError as error:
        raise NotFound("network_not_here", f"this host has no bridge {bridge}") from error
    with (
        told(f"probe {ip} on {bridge}"),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_ARP)) as wire,
    ):
        wire.bind((bridge, _ETHERTYPE_ARP))
        own = wire.getsockname()[4]
        found: set[str] = set()
        end = time.monotonic() + timeout_s
        for number in range(_PROBES):
            wire.send(_probe(own, target))
            until = end - timeout_s * (_PROBES - 1 - number) / _PROBES
            found |= _listen(wire, own, target, until)
            if found:
                break
        return sorted(found)


def _probe(own: bytes, target: bytes) -> bytes:
    ethernet = _BROADCAST + own + struct.pack("!H", _ETHERTYPE_ARP)
    return ethernet + struct.pack(_HEADER, 1, 0x0800, 6, 4, _ARP_REQUEST) + own + bytes(4) + bytes(6) + target


def _listen(wire: socket.socket, own: bytes, target: bytes, until: float) -> set[str]:
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame = wire.recv(128)
        except TimeoutError:
            break
        if len(frame) < 42:
            continue
        operation = struct.unpack("!H", frame[20:22])[0]
        sender_mac, sender_ip = frame[22:28], frame[28:32]
        if operation in (_ARP_REQUEST, _ARP_REPLY) and sender_ip == target and sender_mac != own:
            return {sender_mac.hex(":")}
    return set()
