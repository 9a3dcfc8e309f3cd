"""First process of a lab machine: makes its mounts and name, then becomes its init (tini over supervisord).

Run by machine.py inside fresh network, mount, uts and pid namespaces, with a JSON document on its command line:
`{"hostname", "pid_file", "binds": [[source, target], …], "command": [...]}`. A script: it imports nothing of ours.
"""

import ctypes
import json
import os
import socket
import sys
from pathlib import Path

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND = 2, 4, 8, 4096  # mount(2)
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); raises OSError naming the target."""
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def main() -> None:
    plan = json.loads(sys.argv[1])
    # The outer /proc is still mounted here: it tells the number that the rest of the machine knows us by.
    pid_file = Path(plan["pid_file"])
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(f"{os.readlink('/proc/self')} {started}\n")
    fresh.rename(pid_file)
    for source, target in plan["binds"]:
        mount(source, target, "", MS_BIND)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for folder in ("/run/mica-host", "/run/sshd", "/run/lock"):
        os.mkdir(folder, 0o755)
    socket.sethostname(plan["hostname"])
    print("ready", flush=True)
    os.dup2(2, 1)  # from here on everything goes to the log; the caller's pipe is not ours to keep
    os.execv(plan["command"][0], plan["command"])  # noqa: S606 - a list of words, no shell wanted


main()
