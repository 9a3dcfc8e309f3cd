"""Finding what an instance has running or mounted, by marks in the kernel rather than by memory of our own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from launcher.instance import Instance
from launcher.process import all_pids, command_line, wait_for_end

# Variables that our processes carry in their environment and hand to their children.
CONTROL_MARK = "MICA_PROCESS_OF"
MACHINE_MARK = "MICA_MACHINE_OF"


# These write their title over their environment: they are known by the folder they work in.
STORES = ("postgres", "redis-server")


def processes(instance: Instance, marks: Iterable[str] = (CONTROL_MARK, MACHINE_MARK)) -> list[int]:
    """Every living process that carries one of the marks of this instance, and its stores."""
    wanted = {f"{mark}={instance.name}".encode() for mark in marks}
    found = []
    for pid in all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if wanted & set(environment) or _is_store(pid, instance):
                found.append(pid)
        except OSError:
            continue
    return found


def _is_store(pid: int, instance: Instance) -> bool:
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return name in STORES and Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(instance.data)


def processes_in(namespaces: Iterable[Path]) -> list[int]:
    """Every living process in one of these network namespaces, whoever started it."""
    inodes = {path.stat().st_ino for path in namespaces if path.exists()}
    found = []
    for pid in all_pids():
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                found.append(pid)
        except OSError:
            continue
    return found


def mounts(instance: Instance) -> list[str]:
    """Mount points of the instance in the root mount namespace."""
    ours = (f"{instance.data}/", f"{instance.run}/", f"/run/netns/{instance.namespace('')}")
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return sorted({point for line in lines if (point := line.split()[1]).startswith(ours)})


def end(pids: Iterable[int], deadline_s: float = 5) -> list[str]:
    """Kill processes that outlived their orderly stop; returns their commands, for the report."""
    told = []
    for pid in pids:
        told.append(f"{pid} {command_line(pid)}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        wait_for_end(pid, deadline_s)
    return told


def wait_reaped(pids: Iterable[int], deadline_s: float = 5) -> None:
    """Wait until dead processes are out of the process table too: some an init collects seconds later."""
    watched = [Path(f"/proc/{pid}") for pid in pids]
    ends_at = time.monotonic() + deadline_s
    while any(path.exists() for path in watched) and time.monotonic() < ends_at:
        time.sleep(0.05)
