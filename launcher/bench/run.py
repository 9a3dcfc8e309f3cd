"""What every benchmark works with."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from launcher.bench.api import Api
from launcher.cloud import Cloud
from launcher.errors import Refusal

CHILD_PATIENCE_S = 60


@dataclass(frozen=True)
class Run:
    """The cloud that is measured, whether to be short, and where to tell how far it is.

    `undo` puts back what several benchmarks share, when the last of them has ended.
    """

    cloud: Cloud
    is_quick: bool
    say: Callable[[str], None]
    undo: ExitStack = field(default_factory=ExitStack)
    simulated: list[int] = field(default_factory=list)

    def api(self) -> Api:
        """The API, as an administrator."""
        return Api(self.cloud.instance.port, self.cloud.run_manage("token", "admin").strip().splitlines()[-1])

    def simulate(self, hosts: int) -> None:
        """Have so many simulated hosts until the end; once is enough. Raises Refusal when there are others."""
        if self.simulated:
            return
        if self.cloud.is_simulating():
            raise Refusal(
                "The cloud has simulated hosts, which this would remove with all that is on them",
                "Remove them yourself: ./mica up --simulate 0; or measure another instance: MICA_INSTANCE=bench",
            )
        self.simulated.append(hosts)
        self.undo.callback(self.cloud.simulate, 0)
        self.cloud.simulate(hosts)

    def manage(self, *words: str) -> str:
        """Run a management command, what it says of its progress shown at once; returns what it printed.

        It is told to end, and waited for, when we are interrupted. Raises Refusal when it fails.
        """
        with subprocess.Popen(
            self.cloud.manage_command(*words),
            env={**os.environ, **self.cloud.env()},
            cwd=self.cloud.instance.checkout,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                said, _ = process.communicate()
            except BaseException:
                process.send_signal(signal.SIGTERM)
                process.wait(CHILD_PATIENCE_S)
                raise
        if process.returncode:
            raise Refusal(f"manage.py {words[0]} failed (exit code {process.returncode})")
        return said
