"""Running commands, waiting for conditions, watching processes by /proc."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from launcher.errors import Refusal

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAIL_LINES = 12


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: str | None = None,
    advice: str = "",
) -> str:
    """Run a command to its end and return its standard output.

    Raises Refusal with the last lines it wrote when it fails; `what` names the deed for the message.
    """
    try:
        done = subprocess.run(
            [str(word) for word in argv], env=env, cwd=cwd, input=stdin, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise Refusal(f"{what} failed: the program {error.filename} is missing", advice) from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise Refusal(f"{what} failed (exit code {done.returncode}):\n{tail}", advice)
    return done.stdout


def wait_until(condition: Callable[[], bool], deadline_s: float, what: str, advice: str = "") -> None:
    """For what no event tells of: look again until it is so. Raises Refusal when the deadline passes."""
    ends_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > ends_at:
            raise Refusal(f"{what}: not within {deadline_s:g} s", advice)
        time.sleep(0.05)


def wait_for_end(pid: int, deadline_s: float) -> bool:
    """Wait for any process, not only a child, to end (pidfd_open(2)); False if it outlives the deadline."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        return bool(poller.poll(deadline_s * 1000))
    finally:
        os.close(watch)


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with the pid it names one process for ever (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def all_pids() -> Iterator[int]:
    """Every process of this machine except the caller and its ancestors."""
    own = set(_ancestors(os.getpid()))
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in own:
            yield int(entry)


def command_line(pid: int) -> str:
    """The command of a process, shortened; empty when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace").strip()[:120]


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
