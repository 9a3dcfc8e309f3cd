"""What the machine is: told to control in the agent's hello. Domains add theirs with `@fact`."""

import ipaddress
import logging
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from cloud.agent.registry import FACTS, Machine
from cloud.common.wire import Document

log = logging.getLogger(__name__)

TOLD_FLAGS = ("vmx", "svm", "ept", "npt", "aes", "avx", "avx2", "avx512f", "pdpe1gb", "la57", "hypervisor")
UNTOLD_DISKS = ("loop", "ram", "zram", "nbd", "dm-", "md", "sr", "fd")
SYSTEM = Path("/sys")


def gather(machine: Machine, own: Mapping[str, Callable[[], Document]] | None = None) -> Document:
    """All facts as one flat document of JSON values. One that cannot be had is left out, with the reason in the log.

    hostname, os_name, kernel, architecture; cpu_model, cpu_threads, cpu_cores, cpu_flags; numa_nodes [{id, cpus,
    memory_bytes}]; memory_bytes; disks [{name, size_bytes, is_rotational, model}]; nics [{name, mac, mtu, is_up,
    addresses ["10.0.0.1/24"]}]; versions {python, qemu, …}; and what the domains add. `own` are the functions that know
    the machine itself, where it is not this one.
    """
    facts: Document = {}
    itself = {name: lambda _m, f=f: f() for name, f in (OWN if own is None else own).items()}
    asked = itself | {"certificate": _certificate} | FACTS
    for name, function in asked.items():
        try:
            found: dict[str, Any] = function(machine)
        except Exception:
            log.exception("the fact %s cannot be told", name)
            continue
        for key, value in found.items():
            if isinstance(value, dict) and isinstance(facts.get(key), dict):
                facts[key].update(value)
            else:
                facts[key] = value
    return facts


def _certificate(machine: Machine) -> Document:
    """The agent's certificate, public as it is: whoever enrolled it before control kept its key learns that from it."""
    path = machine.config.certificate
    return {"certificate": path.read_text()} if path.exists() else {}


def os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def tool_version(program: str, *arguments: str) -> str | None:
    """The first line a program says of its version; None when it is not there or does not answer."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def _system() -> Document:
    return {
        "hostname": socket.gethostname(),
        "os_name": os_name(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def _processor() -> Document:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    return {
        "cpu_model": fields.get("model name", platform.processor() or "unknown"),
        "cpu_threads": psutil.cpu_count() or 1,
        "cpu_cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "cpu_flags": [flag for flag in TOLD_FLAGS if flag in flags],
    }


def _memory() -> Document:
    return {"memory_bytes": psutil.virtual_memory().total, "swap_bytes": psutil.swap_memory().total}


def _numa() -> Document:
    nodes = []
    for path in sorted((SYSTEM / "devices/system/node").glob("node[0-9]*")):
        total = next(line for line in (path / "meminfo").read_text().splitlines() if "MemTotal" in line)
        cpus = (path / "cpulist").read_text().strip()
        nodes.append({"id": int(path.name[4:]), "cpus": cpus, "memory_bytes": int(total.split()[-2]) * 1024})
    return {"numa_nodes": nodes}


def _disks() -> Document:
    disks = []
    for path in sorted((SYSTEM / "block").iterdir()):
        if path.name.startswith(UNTOLD_DISKS):
            continue
        model = path / "device" / "model"
        disks.append(
            {
                "name": path.name,
                "size_bytes": int((path / "size").read_text()) * 512,
                "is_rotational": (path / "queue" / "rotational").read_text().strip() == "1",
                "model": model.read_text().strip() if model.exists() else "",
            }
        )
    return {"disks": disks}


def _nics() -> Document:
    states = psutil.net_if_stats()
    nics = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if name == "lo":
            continue
        mac, addresses = "", []
        for entry in entries:
            if entry.family == socket.AF_PACKET:
                mac = entry.address
            elif entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask:
                addresses.append(f"{entry.address.partition('%')[0]}/{_prefix(entry.netmask)}")
        state = states.get(name)
        nics.append(
            {
                "name": name,
                "mac": mac,
                "mtu": state.mtu if state else 0,
                "is_up": bool(state and state.isup),
                "addresses": addresses,
            }
        )
    return {"nics": nics}


def _prefix(netmask: str) -> int:
    return int(ipaddress.ip_address(netmask)).bit_count()


def _versions() -> Document:
    versions = {"python": platform.python_version(), "psutil": psutil.__version__}
    if qemu := tool_version("qemu-system-x86_64", "--version"):
        versions["qemu"] = qemu.removeprefix("QEMU emulator version ").split(" ", 1)[0]
    if libvirt := tool_version("libvirtd", "--version"):
        versions["libvirt"] = libvirt.rsplit(" ", 1)[-1]
    if (module := sys.modules.get("libvirt")) is not None:
        versions["libvirt_python"] = str(module.getVersion())
    return {"versions": versions}


OWN: Mapping[str, Callable[[], Document]] = {
    function.__name__: function for function in (_system, _processor, _memory, _numa, _disks, _nics, _versions)
}
