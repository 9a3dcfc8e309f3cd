"""A whole cloud on this machine: what `./mica` does with it, and what tests may do."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from launcher import locks, preflight, setup, sweep
from launcher.control import environment, metrics, pki, postgres, programs, redis, supervisor
from launcher.errors import Refusal
from launcher.instance import RUN_ROOT, Instance
from launcher.lab import network, plan, seed
from launcher.lab.machine import Machine
from launcher.packages import stamps
from launcher.process import run
from launcher.steps import Steps

CHECKOUT = Path(__file__).resolve().parent.parent
# Folders whose Python the control processes run; a change restarts them at the next `up`.
CODE = ("cloud", "compute", "storage", "network", "backup", "monitoring", "billing", "templates")


class Cloud:
    """The cloud of one instance. Everything it knows it asks of the machine: make as many objects as you like."""

    def __init__(self, instance: Instance | None = None, steps: Steps | None = None) -> None:
        self.instance = instance or Instance.of_checkout(CHECKOUT)
        self.steps = steps or Steps()
        self.machines = {machine.name: Machine(self.instance, machine) for machine in plan.MACHINES}
        self.supervisor = supervisor.of_control(self.instance)

    def up_stores(self) -> None:
        """PostgreSQL and Redis alone: what unit tests need. Raises Refusal."""
        with self._lock():
            self._stores()

    def check_room(self) -> None:
        """Memory, namespaces and the web port are to be had, unless the cloud has them already. Raises Refusal."""
        if self.supervisor.missing(["web"]):
            preflight.check_memory()
            preflight.check_namespaces()
            preflight.check_port(self.instance.port)

    def up_control(self) -> None:
        """Stores, web, workers and beat without any machine of the lab: for simulated hosts alone. Raises Refusal."""
        with self._lock():
            self.check_room()
            self._up_control()

    def up(self) -> None:
        """Bring up what is not up: stores, control, lab machines, their enrolment. Raises Refusal."""
        with self._lock():
            self.check_room()
            setup.lab_files(self.instance, self.steps)
            self._up_control()
            with self.steps.step("Lab machines") as note:
                self.supervisor.start(["outside-www"])
                self._each_machine(Machine.start)
                self._each_machine(Machine.wait_ready)
                note.say(", ".join(self.machines))
            with self.steps.step("Lab in the cloud") as note:
                note.say(self.run_manage("seed_lab", stdin=json.dumps(seed.document(self.instance))).strip())

    def simulate(self, count: int) -> str:
        """Have `count` simulated hosts, connected, beside what there is; 0 removes them. Raises Refusal."""
        with self.steps.step("Simulated hosts") as note:
            self.start_simulator()
            said = self.run_manage("simulate", str(count)).strip()
            note.say(said)
            if not self.is_simulating():
                self.supervisor.stop([programs.SIMULATOR])
            return said

    def start_simulator(self) -> None:
        """Have the process run that is the simulated hosts' agents; it waits until it is told which."""
        self.supervisor.start([programs.SIMULATOR])

    def is_simulating(self) -> bool:
        """Whether this instance has simulated hosts."""
        return (programs.simulator_directory(self.instance) / "simulator.json").exists()

    def down(self, *, purge: bool = False) -> None:
        """Stop everything and verify that nothing is left; `purge` removes data and logs too. Raises Refusal."""
        with self._lock():
            alive = sweep.processes(self.instance)
            with self.steps.step("Control processes"):
                if self.supervisor.is_alive():
                    # First, so that nobody takes the machines' going for a failure.
                    self.supervisor.stop([*programs.CONTROL, programs.SIMULATOR])
            with self.steps.step("Lab machines"):
                self._each_machine(Machine.stop)
            with self.steps.step("Stores"):
                self.supervisor.shut_down()
            with self.steps.step("Networks") as note:
                note.say(self._clear())
                sweep.wait_reaped(alive)
            if purge:
                with self.steps.step("Data and logs"):
                    shutil.rmtree(self.instance.data, ignore_errors=True)
                    shutil.rmtree(self.instance.log, ignore_errors=True)

    def is_up(self) -> bool:
        """Every control process and every machine runs."""
        return not self.supervisor.missing(self._programs()) and all(
            machine.pid() for machine in self.machines.values()
        )

    def status(self) -> list[tuple[str, str, int | None]]:
        """A row (name, state, pid) a control process and a machine; states are supervisor's, in lower case."""
        known = {str(process["name"]): process for process in self.supervisor.processes()}
        rows: list[tuple[str, str, int | None]] = []
        for name in self._programs():
            process = known.get(name)
            state = str(process["statename"]).lower() if process else "stopped"
            rows.append((name, state, self.supervisor.pid(name)))
        for machine in self.machines.values():
            pid = machine.pid()
            rows.append((machine.name, "running" if pid else "stopped", pid))
            rows += [
                (f"{machine.name}/{service['name']}", str(service["statename"]).lower(), None)
                for service in machine.services()
            ]
        return rows

    def draining(self) -> str:
        """`draining, 3 jobs left` while the cloud takes no new work; empty otherwise, and when its database is down."""
        if self.supervisor.pid("postgres") is None:
            return ""
        try:
            return self.run_manage("drain").strip()
        except Refusal:
            return ""

    def env(self) -> dict[str, str]:
        """Environment of the control processes."""
        return environment.of_processes(self.instance)

    def manage_command(self, *words: str) -> list[str]:
        """`manage.py …` inside the management namespace (or outside of any while there is none)."""
        command = [str(self.instance.python), "manage.py", *words]
        if network.exists(self.instance, plan.MANAGEMENT.name):
            return ["ip", "netns", "exec", self.instance.namespace(plan.MANAGEMENT.name), *command]
        return command

    def run_manage(self, *words: str, stdin: str | None = None) -> str:
        """Run a management command and return what it printed. Raises Refusal with its last words when it fails."""
        return run(
            self.manage_command(*words),
            what=f"manage.py {words[0]}",
            env=self.env(),
            stdin=stdin,
            cwd=self.instance.checkout,
        )

    def machine(self, name: str) -> Machine:
        """A lab machine: `host-1`, `host-2`, `storage`."""
        return self.machines[name]

    def pid(self, process: str) -> int | None:
        """Process id of a control process (`web`, `worker`, `redis`, …); None when it does not run."""
        return self.supervisor.pid(process)

    def restart(self, process: str) -> None:
        """Stop and start a control process and wait until it runs."""
        self.supervisor.restart([process])
        self._wait_for(process)

    def stop(self, process: str) -> None:
        self.supervisor.stop([process])

    def start(self, process: str) -> None:
        self.supervisor.start([process])
        self._wait_for(process)

    def _programs(self) -> tuple[str, ...]:
        return (*programs.ALL, programs.SIMULATOR) if self.is_simulating() else programs.ALL

    def _up_control(self) -> None:
        self._stores()
        with self.steps.step("Metric store"):
            metrics.prepare(self.instance)
            self.supervisor.start(programs.METRICS)
        self._control()

    def _stores(self) -> None:
        with self.steps.step("Networks"):
            network.build_underlay(self.instance)
            for place in (plan.MANAGEMENT, plan.OUTSIDE):
                network.plug_in(self.instance, place)
        environment.prepare(self.instance)
        with self.steps.step("Certificates"):
            pki.prepare(self.instance)
        with self.steps.step("PostgreSQL and Redis"):
            postgres.prepare(self.instance)
            redis.prepare(self.instance)
            self._launch_supervisor()
            self.supervisor.start(programs.STORES)
            postgres.wait_ready(self.instance)
            redis.wait_ready(self.instance)

    def _launch_supervisor(self) -> None:
        """The supervisor with today's programs and settings; what ran with other ones is stopped first."""
        stamp = self.instance.run / "control.stamp"
        wanted = programs.of(self.instance)
        current = stamps.digest(json.dumps(self.env()), *(f"{program}" for program in wanted))
        if self.supervisor.is_alive() and not stamps.is_current(stamp, current):
            self.supervisor.shut_down()
        if not self.supervisor.is_alive():
            # A supervisor that was killed leaves its children, who hold sockets and data folders.
            sweep.end(sweep.processes(self.instance, [sweep.CONTROL_MARK]))
            supervisor.launch(self.instance, wanted, self.env())
            stamps.write(stamp, current)

    def _control(self) -> None:
        """Migrations, web, workers, beat; left alone while they run the code of the checkout."""
        code = [self.instance.checkout / folder for folder in CODE]
        running = self.instance.run / "code.stamp"
        current = stamps.digest(*code)
        if not stamps.is_current(running, current):
            self.supervisor.stop([*programs.CONTROL, programs.SIMULATOR])
        with self.steps.step("Database migrations") as note:
            note.say(self._migrate(code))
        with self.steps.step("Web, workers, beat"):
            self.supervisor.start(programs.CONTROL)
            self._wait_for("web")
            if self.is_simulating():
                self.start_simulator()
        stamps.write(running, current)

    def _migrate(self, code: list[Path]) -> str:
        """Bring the database to the code's state. Remembered with the data, for asking costs seconds."""
        stamp = self.instance.data / "migrations.stamp"
        folders = [folder for place in code for folder in place.rglob("migrations")]
        # The requirements count too: some of them bring tables.
        current = stamps.digest(*folders, self.instance.checkout / "requirements.txt")
        if stamps.is_current(stamp, current):
            return "up to date"
        self.run_manage("migrate", "--noinput", "--verbosity=0")
        stamps.write(stamp, current)
        return "applied"

    def _wait_for(self, process: str) -> None:
        if process == "postgres":
            postgres.wait_ready(self.instance)
        if process == "redis":
            redis.wait_ready(self.instance)
        if process == "web":
            # The socket listens since the supervisor bound it: one request waits until the process serves it.
            connection = http.client.HTTPConnection("127.0.0.1", self.instance.port, timeout=60)
            try:
                connection.request("HEAD", "/", headers={"Host": "localhost"})
                connection.getresponse().read()
            except OSError as error:
                raise Refusal(
                    f"The web process does not answer: {error}", f"See {self.instance.log}/web.log."
                ) from error
            finally:
                connection.close()

    def _each_machine(self, act: Callable[[Machine], None]) -> None:
        with ThreadPoolExecutor(len(self.machines)) as pool:
            for done in [pool.submit(act, machine) for machine in self.machines.values()]:
                done.result()

    def _clear(self) -> str:
        """Delete the namespaces, end what outlived its stop, look for what is left. Raises Refusal if something is."""
        instance = self.instance
        inside = sweep.processes_in(network.NETNS / name for name in network.left_behind(instance))
        ended = sweep.end([*sweep.processes(instance), *inside])
        network.remove_all(instance)
        shutil.rmtree(instance.run, ignore_errors=True)
        left = [*map(str, sweep.processes(instance)), *network.left_behind(instance), *sweep.mounts(instance)]
        if left:
            raise Refusal(f"Still there after `down`: {', '.join(left)}", "Run ./mica down again, or reboot.")
        told = f"; had to kill: {'; '.join(ended)}" if ended else ""
        return f"no process, namespace or mount left{told}"

    def _lock(self) -> AbstractContextManager[None]:
        def waiting(who: str) -> None:
            self.steps.say(f"  Waiting for another launcher of {self.instance.name} ({who})")

        return locks.held(RUN_ROOT / f"{self.instance.name}.lock", waiting)
