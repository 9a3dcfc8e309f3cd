"""The lab's network: namespaces, the underlay's bridges, cables. Nothing of it is in the root namespace."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from launcher.instance import Instance
from launcher.lab.plan import BRIDGES, UNDERLAY, Place
from launcher.process import run

NETNS = Path("/run/netns")


def exists(instance: Instance, place: str) -> bool:
    return (NETNS / instance.namespace(place)).exists()


def build_underlay(instance: Instance) -> None:
    """The switches of the lab, once; idempotent."""
    _add_namespace(instance, UNDERLAY)
    there = interfaces(instance, UNDERLAY)
    lines = [
        line
        for bridge in BRIDGES
        if bridge not in there
        for line in (f"link add {bridge} type bridge", f"link set {bridge} up")
    ]
    _ip(instance.namespace(UNDERLAY), lines)


def plug_in(instance: Instance, place: Place) -> None:
    """Make the place's namespace and its cables where they are missing; idempotent."""
    _add_namespace(instance, place.name)
    inside, underlay = instance.namespace(place.name), instance.namespace(UNDERLAY)
    there = interfaces(instance, place.name)
    outer: list[str] = []
    inner: list[str] = []
    for cable in place.cables:
        if cable.interface in there:
            continue
        port = port_name(place.name, cable.interface)
        outer += [
            f"link add {port} type veth peer name {cable.interface} netns {inside}",
            f"link set {port} master {cable.bridge} up",
        ]
        if cable.address:
            inner.append(f"addr add {cable.address} dev {cable.interface}")
        inner.append(f"link set {cable.interface} up")
    _ip(underlay, outer)
    _ip(inside, inner)


def unplug(instance: Instance, place: str) -> None:
    """Remove a place's cables and namespace, with all that was made inside; absent is fine."""
    if exists(instance, UNDERLAY):
        # By hand, though the namespace takes its ends along: that happens later, and a new cable needs the name now.
        ports = [name for name in interfaces(instance, UNDERLAY) if name.startswith(f"{place}-eth")]
        _ip(instance.namespace(UNDERLAY), [f"link del {port}" for port in ports])
    if exists(instance, place):
        run(["ip", "netns", "del", instance.namespace(place)], what=f"Removing the namespace of {place}")


def set_carrier(instance: Instance, place: Place, is_up: bool, only: tuple[str, ...] = ()) -> None:
    """Pull (or put back) the cables of a place at the switch; all of them, or those of the named interfaces."""
    word = "up" if is_up else "down"
    ports = [port_name(place.name, cable.interface) for cable in place.cables if not only or cable.interface in only]
    _ip(instance.namespace(UNDERLAY), [f"link set {port} {word}" for port in ports])


def interfaces(instance: Instance, place: str) -> set[str]:
    """Names of the interfaces in a place's namespace."""
    answer = run(["ip", "-j", "-n", instance.namespace(place), "link", "show"], what=f"Reading the links of {place}")
    return {link["ifname"] for link in json.loads(answer or "[]")}


def port_name(place: str, interface: str) -> str:
    """The switch's end of a cable; at most 15 characters (IFNAMSIZ)."""
    return f"{place}-{interface}"


def left_behind(instance: Instance) -> list[str]:
    """Namespaces of the instance that still exist, of the lab's places or not."""
    prefix = instance.namespace("")
    return sorted(entry.name for entry in NETNS.iterdir() if entry.name.startswith(prefix)) if NETNS.exists() else []


def remove_all(instance: Instance) -> None:
    """Delete every namespace of the instance; what is inside goes with it."""
    for name in left_behind(instance):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        (NETNS / name).unlink(missing_ok=True)  # an unfinished `ip netns add` leaves a plain file


def _add_namespace(instance: Instance, place: str) -> None:
    name = instance.namespace(place)
    if (NETNS / name).exists():
        return
    run(["ip", "netns", "add", name], what=f"Making the namespace of {place}")
    _ip(name, ["link set lo up"])


def _ip(namespace: str, lines: list[str]) -> None:
    """One `ip` for many changes: each process costs 3–8 ms."""
    if lines:
        run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(lines) + "\n", what=f"Wiring {namespace}")
