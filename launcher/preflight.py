"""What must be so before anything is touched: root, the distribution, room, a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from launcher.errors import Refusal
from launcher.instance import DATA_ROOT, Instance
from launcher.process import all_pids, command_line

GIB = 1 << 30
DISK_FIRST_BYTES = 6 * GIB
DISK_LATER_BYTES = 1 * GIB
MEMORY_BYTES = 2 * GIB
OLDEST = {"debian": 12.0, "ubuntu": 24.04}


def become_root() -> None:
    """Go on as root: by sudo where there is one. Raises Refusal where there is none."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Refusal(
            "Mica makes network namespaces and runs virtual machines, which only root may do",
            "Run it as root (su -c './mica up'), or install sudo.",
        )
    kept = ",".join(name for name in os.environ if name.startswith("MICA_"))
    print("Mica makes network namespaces and runs virtual machines: going on with sudo", flush=True)
    os.execv(sudo, ["sudo", *([f"--preserve-env={kept}"] if kept else []), sys.executable, "-B", *sys.argv])  # noqa: S606 - a list of words, no shell wanted


def check_distribution(os_release: Path = Path("/etc/os-release")) -> None:
    """Debian 12+, Ubuntu 24.04+ or a derivative of theirs. Raises Refusal on anything else."""
    facts: dict[str, str] = {}
    if os_release.exists():
        for line in os_release.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals:
                facts[name] = value.strip().strip("\"'")
    identity, alike = facts.get("ID", ""), facts.get("ID_LIKE", "").split()
    advice = "Mica sets itself up on Debian 12 or newer and Ubuntu 24.04 or newer; docs/deploying.md tells the parts."
    if identity not in OLDEST and not set(alike) & set(OLDEST):
        raise Refusal(f"This is {facts.get('PRETTY_NAME') or 'an unknown system'}, not Debian or Ubuntu", advice)
    oldest, version = OLDEST.get(identity), facts.get("VERSION_ID", "")
    try:
        too_old = oldest is not None and float(version) < oldest
    except ValueError:
        too_old = False  # testing and unstable carry no number
    if too_old:
        raise Refusal(f"{facts.get('PRETTY_NAME')} is too old", advice)


def check_disk(instance: Instance) -> None:
    """Room for packages, images and guests, where data and checkout lie. Raises Refusal."""
    is_first = not (instance.data.exists() and instance.venv.exists())
    needed = DISK_FIRST_BYTES if is_first else DISK_LATER_BYTES
    for place in (DATA_ROOT, instance.checkout):
        there = place
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        if free < needed:
            raise Refusal(
                f"Only {free / GIB:.1f} GiB are free at {there}, {needed / GIB:.0f} GiB are needed",
                "Free some room, or mount a larger disk there.",
            )


def check_namespaces() -> None:
    """The kernel lets us make namespaces: not so in most containers. Raises Refusal."""
    probe = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal(
            f"This machine does not let root make namespaces: {done.stderr.strip()}",
            "Run Mica on a real or virtual machine; a container would have to be privileged.",
        )


def check_memory() -> None:
    """Room for the control processes and a few small guests. Raises Refusal."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if available < MEMORY_BYTES:
        raise Refusal(
            f"Only {available / GIB:.1f} GiB of memory are available, {MEMORY_BYTES / GIB:.0f} GiB are needed",
            "Stop what you do not need, or take a larger machine.",
        )


def check_port(port: int) -> None:
    """The web port on loopback is free. Raises Refusal naming who has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise Refusal(f"Port {port} may not be bound", "Choose another: MICA_PORT=8001 ./mica up") from None
        except OSError:
            owner = port_owner(port)
            by = f" by process {owner} ({command_line(owner)})" if owner else ""
            raise Refusal(f"Port {port} is taken{by}", "Stop it, or choose another: MICA_PORT=8001 ./mica up") from None


def port_owner(port: int) -> int | None:
    """The process that listens on this TCP port of our network namespace, by /proc/net/tcp (proc(5))."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return next((pid for pid in all_pids() if inodes & open_files(pid)), None)


def open_files(pid: int) -> set[str]:
    """What the descriptors of a process point at; those that close meanwhile are passed over."""
    found = set()
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
