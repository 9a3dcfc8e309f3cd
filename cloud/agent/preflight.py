"""What a machine has and lacks for its work as an agent, before it becomes one. Changes nothing."""

import importlib
import os
import platform
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from cloud.agent.config import STATE_DIRECTORY
from cloud.agent.facts import os_name, tool_version
from cloud.agent.version import current

LEAST_ROOM_BYTES = 1 << 30
LEAST_MEMORY_BYTES = 512 << 20
LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/var/run/libvirt/libvirt-sock"))
LIBRARIES = {
    "host": {
        "psutil": "python3-psutil",
        "cryptography": "python3-cryptography",
        "libvirt": "python3-libvirt",
        "nftables": "python3-nftables",
    },
    "image_server": {"psutil": "python3-psutil", "cryptography": "python3-cryptography"},
}
PROGRAMS = {
    "host": {
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "libvirtd": "libvirt-daemon",
        "dnsmasq": "dnsmasq-base",
        "ip": "iproute2",
        "nft": "nftables",
        "genisoimage": "genisoimage",
    },
    "image_server": {"qemu-img": "qemu-utils"},
}

Lack = dict[str, Any]


def look(kind: str, *, hypervisor: str = "libvirt", folders: tuple[Path, ...] = ()) -> dict[str, Any]:
    """`{"kind", "version", "found": {…}, "missing": [{"code", "detail", "advice", "packages"}]}`.

    `found` tells hostname, os_name, kernel, python, versions, disk_free_bytes {folder: bytes}, memory_bytes,
    clock_at (seconds since the epoch: compare with control's). `missing` is empty when the machine can be used.
    """
    rooms = {str(folder): _room_bytes(folder) for folder in (STATE_DIRECTORY, *folders)}
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {
        "hostname": socket.gethostname(),
        "os_name": os_name(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "memory_bytes": memory_bytes,
        "disk_free_bytes": rooms,
        "has_kvm_device": Path("/dev/kvm").exists(),
        "clock_at": time.time(),
        "versions": {},
    }
    missing: list[Lack] = []
    if os.geteuid() != 0:
        missing.append(_lack("not_root", "The agent must run as root.", "Sign in as root or as a user with sudo."))
    wants_hypervisor = kind == "host" and hypervisor == "libvirt"
    missing += _libraries(kind, wants_hypervisor) + _programs(kind, wants_hypervisor, found["versions"])
    if wants_hypervisor and not any(path.is_socket() for path in LIBVIRT_SOCKETS):
        advice = "Start libvirtd (systemctl enable --now libvirtd) and try again."
        missing.append(_lack("libvirt_not_running", "libvirt's socket /run/libvirt/libvirt-sock is not there.", advice))
    for folder, room in rooms.items():
        if room < LEAST_ROOM_BYTES:
            detail = f"Only {room >> 20} MiB are free under {folder}; {LEAST_ROOM_BYTES >> 20} MiB are needed."
            missing.append(_lack("disk_full", detail, "Free some space there and try again."))
    if memory_bytes < LEAST_MEMORY_BYTES:
        missing.append(_lack("memory_too_small", f"The machine has {memory_bytes >> 20} MiB.", "Use a larger machine."))
    return {"kind": kind, "version": current(), "found": found, "missing": missing}


def _libraries(kind: str, wants_hypervisor: bool) -> list[Lack]:
    absent = {}
    for module, package in LIBRARIES[kind].items():
        if module == "libvirt" and not wants_hypervisor:
            continue
        try:
            importlib.import_module(module)
        except ImportError:
            absent[module] = package
    return _packages("python_library_missing", "Python cannot import", absent)


def _programs(kind: str, wants_hypervisor: bool, versions: dict[str, str]) -> list[Lack]:
    absent = {}
    for program, package in PROGRAMS[kind].items():
        if shutil.which(program) is None:
            if wants_hypervisor or kind != "host":
                absent[program] = package
        elif program in ("qemu-img", "libvirtd", "dnsmasq"):
            versions[program] = tool_version(program, "--version") or "unknown"
    return _packages("program_missing", "The machine lacks", absent)


def _packages(code: str, what: str, absent: dict[str, str]) -> list[Lack]:
    if not absent:
        return []
    packages = sorted(set(absent.values()))
    advice = f"Install on it: apt-get install {' '.join(packages)}"
    return [{**_lack(code, f"{what} {', '.join(sorted(absent))}.", advice), "packages": packages}]


def _lack(code: str, detail: str, advice: str) -> Lack:
    return {"code": code, "detail": detail, "advice": advice, "packages": []}


def _room_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
