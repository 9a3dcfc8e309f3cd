"""Whether the machine is on its way down: then what ends on it ends with it, and not because it wanted to.

systemd tells by its state (`systemctl is-system-running` says `stopping`,
https://www.freedesktop.org/software/systemd/man/latest/systemctl.html); a machine whose services a supervisor runs, by
that supervisor being told to end.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SYSTEMD = Path("/run/systemd/system")
SUPERVISOR_TOOL = Path("/etc/mica/supervisorctl")
ASK_WITHIN_S = 3
REMEMBER_S = 1.0

Run = Callable[[list[str]], str]


def _said(argv: list[str]) -> str:
    """What a program prints, "" when it does not run or takes too long."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=ASK_WITHIN_S, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


class GoingDown:
    """Asks the machine's service manager; what it said is good for a second. systemd never takes `stopping` back."""

    def __init__(self, run: Run = _said, systemd: Path = SYSTEMD, supervisor_tool: Path = SUPERVISOR_TOOL) -> None:
        self._run, self._systemd, self._supervisor_tool = run, systemd, supervisor_tool
        self._asked_at, self._is_down = float("-inf"), False

    def __call__(self) -> bool:
        now = time.monotonic()
        is_final = self._is_down and self._systemd.exists()
        if not is_final and now - self._asked_at >= REMEMBER_S:
            self._asked_at, self._is_down = now, self._ask()
        return self._is_down

    def _ask(self) -> bool:
        if self._systemd.exists():
            return self._run(["systemctl", "is-system-running"]) == "stopping"
        if self._supervisor_tool.exists():
            tool = self._supervisor_tool.read_text().strip()
            # Its state is not among the words of supervisorctl; while it ends, it keeps no program running.
            states = [line.split()[1] for line in self._run([tool, "status"]).splitlines() if len(line.split()) > 1]
            return bool(states) and not {"RUNNING", "STARTING"} & set(states)
        return False
