"""A machine of the lab: namespaces of its own, an init, sshd, libvirtd on hosts; started and stopped alone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import sweep
from launcher.control.supervisor import Supervisor
from launcher.errors import Refusal
from launcher.instance import Instance
from launcher.lab import machine_files, network
from launcher.lab.plan import MachinePlan
from launcher.process import SYSTEM_PATH, started_at, wait_for_end, wait_until

INIT = Path(__file__).with_name("machine_init.py")
START_SECONDS = 15.0
STOP_SECONDS = 10.0
ENVIRONMENT = {"PATH": SYSTEM_PATH, "HOME": machine_files.ROOT_HOME, "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Machine:
    """A lab machine of an instance; all state is in the kernel and in files, so any number of these may exist."""

    instance: Instance
    plan: MachinePlan

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def pid_file(self) -> Path:
        return self.instance.run / "lab" / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        return self.instance.log / f"{self.name}.log"

    def pid(self) -> int | None:
        """Process id of its init, as the surrounding machine numbers it; None when the machine is off."""
        try:
            pid, started = (int(word) for word in self.pid_file.read_text().split())
        except (FileNotFoundError, ValueError):
            return None
        return pid if started_at(pid) == started else None

    def start(self) -> None:
        """Power on: fresh network cards, fresh /run, its disk as it was. Does nothing when it runs.

        Returns when its init stands; wait_ready() waits for its services. Raises Refusal.
        """
        if self.pid() is not None:
            return
        machine_files.prepare(self.instance, self.plan)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        # What the last life left in the network namespace (bridges, taps) would have gone with a real power cut too.
        network.unplug(self.instance, self.name)
        network.plug_in(self.instance, self.plan)
        document = {
            "hostname": self.name,
            "pid_file": str(self.pid_file),
            "binds": machine_files.binds(self.instance, self.plan),
            # tini reaps orphans at once; supervisord alone would take up to a second, and libvirt waits for it.
            "command": [
                "/usr/bin/tini",
                "--",
                str(self.instance.venv / "bin/supervisord"),
                "-c",
                machine_files.SUPERVISOR_CONFIG,
            ],
        }
        self._launch(document)

    def wait_ready(self, deadline_s: float = 30) -> None:
        """Wait until one can sign in by SSH, and on a host until libvirt answers. Raises Refusal."""
        wait_until(self._listens_for_ssh, deadline_s, f"{self.name} taking SSH connections", self._see_log())
        if self.plan.is_host:
            door = self._inside("/run/libvirt/libvirt-sock")
            wait_until(lambda: door() is not None, deadline_s, f"libvirtd on {self.name}", self._see_log())

    def stop(self) -> None:
        """Shut down: its supervisor stops the services, then all else in it ends, guests included. Off is fine."""
        self._end(signal.SIGTERM, STOP_SECONDS)
        if self.pid() is not None:
            self.kill()

    def kill(self) -> None:
        """Cut the power: every process in it dies at once. Off is fine."""
        self._end(signal.SIGKILL, STOP_SECONDS)
        if self.pid() is not None:
            raise Refusal(f"{self.name} (process {self.pid()}) does not die", "A device may hang: see dmesg.")

    def restart(self) -> None:
        """Power off and on again, and wait until it is ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def cut(self, *interfaces: str) -> None:
        """Pull its network cables at the switch; all, or those of the named interfaces."""
        network.set_carrier(self.instance, self.plan, False, interfaces)

    def mend(self, *interfaces: str) -> None:
        """Put its network cables back."""
        network.set_carrier(self.instance, self.plan, True, interfaces)

    def enter(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, and return it completed. Raises Refusal when the machine is off."""
        return subprocess.run(
            [*self.enter_command(), *argv],
            input=stdin,
            env={**ENVIRONMENT, **(env or {})},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def enter_command(self) -> list[str]:
        """The words to put before a command so that it runs inside. Raises Refusal when the machine is off."""
        pid = self.pid()
        if pid is None:
            raise Refusal(f"{self.name} is off", "Start it: ./mica up")
        return ["nsenter", "--target", str(pid), "--net", "--mount", "--uts", "--pid", "--"]

    def services(self) -> list[dict[str, object]]:
        """Its supervised processes as supervisor tells them (name, statename, pid, …); empty when off."""
        path = self._inside(machine_files.SUPERVISOR_SOCKET)()
        return Supervisor(path, self.instance.log).processes() if path else []

    def password(self) -> str:
        """root's password."""
        return machine_files.root_password(self.instance, self.plan)

    def _launch(self, document: Mapping[str, object]) -> None:
        """Run machine_init.py in new namespaces, away from the caller, until it says that the machine stands."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [
                    "setsid",
                    "--fork",
                    "ip",
                    "netns",
                    "exec",
                    self.instance.namespace(self.name),
                    "unshare",
                    "--mount",
                    "--uts",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "/usr/bin/python3",
                    "-I",
                    INIT,
                    json.dumps(document),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={**ENVIRONMENT, sweep.MACHINE_MARK: self.instance.name},
            )
        with process:
            assert process.stdout is not None
            said = select.select([process.stdout], [], [], START_SECONDS)[0]
            # A line when it stands; the pipe's end when any of the programs before it failed.
            if not said or not process.stdout.readline():
                raise Refusal(f"{self.name} did not start", self._see_log())

    def _inside(self, path: str) -> Callable[[], Path | None]:
        def find() -> Path | None:
            pid = self.pid()
            seen = Path(f"/proc/{pid}/root{path}")
            return seen if pid is not None and seen.exists() else None

        return find

    def _listens_for_ssh(self) -> bool:
        pid = self.pid()
        if pid is None:
            return False
        table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(":0016") and line.split()[3] == "0A" for line in table)

    def _end(self, sign: int, deadline_s: float) -> None:
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, sign)
        wait_for_end(pid, deadline_s)

    def _see_log(self) -> str:
        return f"See {self.log_file} and {machine_files.folder(self.instance, self.plan)}/log-agent/."
