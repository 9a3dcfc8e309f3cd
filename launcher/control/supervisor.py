"""A supervisord (PyPI: supervisor) spoken to over its unix socket, and its configuration file."""

from __future__ import annotations

import configparser
import http.client
import socket
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from launcher.control.programs import Program
from launcher.errors import Refusal
from launcher.instance import Instance
from launcher.process import TAIL_LINES, run, wait_for_end, wait_until

RUNNING = "RUNNING"
# supervisor.xmlrpc.Faults
BAD_NAME, ALREADY_STARTED, NOT_RUNNING = 10, 60, 70


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)


class Supervisor:
    """One supervisord behind one socket; `log` is the folder of its programs' logs, for messages."""

    def __init__(self, path: Path, log: Path) -> None:
        self._path = path
        self._log = log
        self._rpc: Any = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path)).supervisor

    def is_alive(self) -> bool:
        try:
            return bool(self._rpc.getState()["statename"] == RUNNING)
        except (OSError, http.client.HTTPException):
            return False

    def processes(self) -> list[dict[str, object]]:
        """Every program: name, group, statename, pid, description, … (supervisor's getProcessInfo)."""
        try:
            return cast("list[dict[str, object]]", self._rpc.getAllProcessInfo())
        except (OSError, http.client.HTTPException):
            return []

    def pid(self, name: str) -> int | None:
        """Process id of a program; None when it does not run."""
        info = next((process for process in self.processes() if process["name"] == name), None)
        return cast(int, info["pid"]) or None if info else None

    def start(self, names: Iterable[str], deadline_s: float = 40) -> None:
        """Start programs together and wait until each runs. Raises Refusal with the last words of those that do not."""
        wanted = list(names)
        for name in wanted:
            try:
                self._rpc.startProcess(self._full_name(name), False)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != ALREADY_STARTED:
                    raise Refusal(f"{name} does not start: {fault.faultString}") from fault
        try:
            wait_until(lambda: not self.missing(wanted), deadline_s, f"Starting {', '.join(wanted)}")
        except Refusal as refusal:
            said = "".join(f"\n── {name} ──\n{self._last_words(name)}" for name in self.missing(wanted))
            raise Refusal(f"{refusal.what}{said}", f"The whole logs are in {self._log}.") from None

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the programs that do not run."""
        running = {process["name"] for process in self.processes() if process["statename"] == RUNNING}
        return [name for name in names if name not in running]

    def stop(self, names: Iterable[str]) -> None:
        """Stop programs one after the other and wait for each; stopped is fine."""
        for name in names:
            try:
                self._rpc.stopProcess(self._full_name(name), True)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode not in (NOT_RUNNING, BAD_NAME):
                    raise Refusal(f"{name} does not stop: {fault.faultString}") from fault

    def restart(self, names: Iterable[str]) -> None:
        wanted = list(names)
        self.stop(wanted)
        self.start(wanted)

    def shut_down(self, deadline_s: float = 40) -> None:
        """Stop everything and end; ended is fine. Raises Refusal when it outlives the deadline."""
        try:
            pid = int(self._rpc.getPID())
            self._rpc.shutdown()
        except (OSError, http.client.HTTPException):
            return
        if not wait_for_end(pid, deadline_s):
            raise Refusal(f"supervisord (process {pid}) does not end", f"See {self._log}/supervisord.log.")

    def _last_words(self, name: str) -> str:
        text = str(self._rpc.tailProcessStdoutLog(self._full_name(name), 0, 4000)[0])
        return "\n".join(text.strip().splitlines()[-TAIL_LINES:])

    def _full_name(self, name: str) -> str:
        info = next((process for process in self.processes() if process["name"] == name), None)
        return f"{info['group']}:{name}" if info else name


def socket_path(instance: Instance) -> Path:
    return instance.run / "supervisor.sock"


def of_control(instance: Instance) -> Supervisor:
    """The supervisor of the instance's control processes, alive or not."""
    return Supervisor(socket_path(instance), instance.log)


def launch(instance: Instance, programs: Iterable[Program], environment: dict[str, str]) -> Supervisor:
    """Write the configuration and start supervisord as a daemon with this environment; running is fine."""
    supervisor = of_control(instance)
    if supervisor.is_alive():
        return supervisor
    config_file = instance.run / "supervisord.conf"
    config_file.touch(mode=0o600)
    with config_file.open("w") as file:
        configuration(instance, programs).write(file)
    socket_path(instance).unlink(missing_ok=True)
    run(
        [instance.venv / "bin/supervisord", "-c", config_file],
        what="Starting supervisord",
        env=environment,
        cwd="/",
        advice=f"See {instance.log}/supervisord.log.",
    )
    wait_until(supervisor.is_alive, 10, "supervisord answering", f"See {instance.log}/supervisord.log.")
    return supervisor


def configuration(instance: Instance, programs: Iterable[Program]) -> configparser.RawConfigParser:
    """supervisord.conf; nothing starts by itself, the launcher starts in order."""
    config = configparser.RawConfigParser()
    config["unix_http_server"] = {"file": _escaped(socket_path(instance)), "chmod": "0700"}
    config["supervisord"] = {
        "logfile": _escaped(instance.log / "supervisord.log"),
        "pidfile": _escaped(instance.run / "supervisord.pid"),
        "childlogdir": _escaped(instance.log),
        "user": "root",
        "directory": "/",
        "minfds": "8192",
    }
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisorctl"] = {"serverurl": _escaped(f"unix://{socket_path(instance)}")}
    for program in programs:
        section = f"{'fcgi-program' if program.listens_on else 'program'}:{program.name}"
        config[section] = {
            "command": _escaped(program.command_line),
            "directory": _escaped(program.directory),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "30",
            "stopsignal": program.stop_signal,
            "stopwaitsecs": str(program.stop_seconds),
            "stopasgroup": "false" if program.stops_children_itself else "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _escaped(instance.log / f"{program.name}.log"),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "3",
        }
        if program.listens_on:
            # The supervisor binds and hands the socket down as descriptor 0: it outlives each restart of the program.
            config[section].update({"socket": f"tcp://{program.listens_on}", "process_name": program.name})
    return config


def _escaped(value: object) -> str:
    """supervisor expands %(…)s in every value."""
    return str(value).replace("%", "%%")
