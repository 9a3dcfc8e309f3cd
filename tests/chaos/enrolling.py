"""Machines that take SSH, in memory: what enrolment does on one, and the agent that starts there when it may."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from cloud.common import pki, signing
from cloud.common.driver import Rejected
from cloud.infra import enrolment
from cloud.infra.drivers.ssh import Credentials, HostKey, Remote, Result
from cloud.infra.models import Agent
from cloud.infra.services import hosts
from cloud.infra.workflows import steps
from cloud.jobs.models import Job
from storage.services import backup_storages
from tests.chaos.fleet import Fleet
from tests.compute.scenarios import Scenario
from tests.compute.world import World
from tests.network import factories as networks

PASSWORD = "correct horse"
FACTS = {"hostname": "new", "cpu_threads": 4, "memory_bytes": 9 << 30}
CONFIG_FILE = f"{enrolment.CONFIG}/agent.json"


@dataclass
class Box:
    """One machine: its files, and whether its service manager runs the agent."""

    address: str
    fleet: Fleet
    files: dict[str, bytes] = field(default_factory=lambda: {enrolment.SUPERVISOR_TOOL: b"/bin/supervisorctl\n"})
    is_running: bool = False

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files.get(CONFIG_FILE, b"{}"))
        return found

    def may_enter(self) -> bool:
        """Whether Redis lets in who has the agent's access."""
        config = self.config()
        hashed = signing.password_hash(str(config.get("redis_password", "")))
        return hashed in self.fleet.redis.users.get(str(config.get("redis_username")), set())

    def run_agent(self) -> None:
        """The agent's process begins, or ends; without access nobody hears of it."""
        for node in self.fleet.nodes.values():
            if node.facts.get("box") == self.address and node.is_up:
                node.kill()
        if self.is_running and self.config() and self.may_enter():
            facts = {**FACTS, "nics": networks.cards(), "box": self.address}
            node = self.fleet.node(self.config()["uuid"], facts)
            node.facts, node.is_retired = facts, False
            node.hashed = signing.password_hash(str(self.config()["redis_password"]))
            node.start()

    def run(self, argv: Sequence[str], stdin: bytes) -> str | None:
        """What a command says; None when it fails."""
        match list(argv):
            case ["/usr/bin/python3", "-c", *_]:
                return ""
            case ["cat", "--", path]:
                return self.files[path].decode() if path in self.files else None
            case ["test", "-e", path]:
                return "" if self._below(path) else None
            case ["rm", "-rf", "--", *paths]:
                self._remove(*paths)
            case ["sh", "-c", _, "sh", path, _mode]:
                self.files[path] = stdin
            case ["sh", "-c", script, "sh", before, bundle, config]:
                self._keep(before, bundle, config) if "cp -a" in script else self._bring_back(before, bundle, config)
            case [*python, "preflight", "--kind", _, "--hypervisor", _] if python == enrolment.PYTHON:
                return json.dumps({"missing": []}) if enrolment.BUNDLE in self.files else None
            case [*python, "csr", "--uuid", uuid] if python == enrolment.PYTHON:
                return self._request(uuid)
            case ["/bin/supervisorctl", "update"]:
                is_wanted = enrolment.SUPERVISOR_FILE in self.files
                is_new, self.is_running = is_wanted and not self.is_running, is_wanted
                if is_new or not is_wanted:
                    self.run_agent()
                return f"{enrolment.UNIT}: added process group\n" if is_new else ""
            case ["/bin/supervisorctl", "restart", enrolment.UNIT]:
                self.run_agent()
            case _:
                raise AssertionError(f"not known to the machines of these tests: {argv}")
        return ""

    def _below(self, path: str) -> dict[str, bytes]:
        return {name: text for name, text in self.files.items() if name == path or name.startswith(f"{path}/")}

    def _remove(self, *paths: str) -> None:
        for path in paths:
            for name in self._below(path):
                del self.files[name]

    def _move(self, source: str, target: str, *, is_copy: bool = False) -> None:
        for name, text in self._below(source).items():
            self.files[target + name.removeprefix(source)] = text
        if not is_copy:
            self._remove(source)

    def _keep(self, before: str, bundle: str, config: str) -> None:
        self._remove(before)
        self._move(bundle, f"{before}/bundle", is_copy=True)
        self._move(config, f"{before}/config", is_copy=True)

    def _bring_back(self, before: str, bundle: str, config: str) -> None:
        if self._below(before):
            self._remove(bundle, config)
            self._move(f"{before}/bundle", bundle)
            self._move(f"{before}/config", config)

    def _request(self, uuid: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "key.pem"
            if known := self.files.get(f"{enrolment.CONFIG}/key.pem"):
                path.write_bytes(known)
            said = pki.request(path, uuid)
            self.files[f"{enrolment.CONFIG}/key.pem"] = path.read_bytes()
        return said


class Session(Remote):
    """A signed-in session with a box; above `run` all is the shipped code."""

    boxes: dict[str, Box]

    def __init__(self, box: Box) -> None:
        self._box, self.host_key = box, HostKey("ssh-ed25519", "SHA256:" + "A" * 43)

    @classmethod
    def connect(cls, address: str, port: int, credentials: Credentials, **_: Any) -> Self:
        if credentials.password != PASSWORD:
            raise Rejected("ssh_secret_wrong", "The machine refused to let us sign in.")
        return cls(cls.boxes[address])

    def __exit__(self, *_: object) -> None: ...

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 0) -> Result:
        said = self._box.run(argv, stdin)
        return Result(1, "", "no") if said is None else Result(0, said, "")


class Boxes(dict[str, Box]):
    """All of them by address; saved and put back with the world."""

    def __init__(self, patch: pytest.MonkeyPatch, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet
        here = type("Here", (Session,), {"boxes": self})
        patch.setattr(steps, "Remote", here)
        patch.setattr(enrolment, "bundle", lambda: b"the agent")

    def __missing__(self, address: str) -> Box:
        return self.setdefault(address, Box(address, self._fleet))

    def save(self) -> Any:
        return {address: (dict(box.files), box.is_running) for address, box in self.items()}

    def restore(self, saved: Any) -> None:
        self.clear()
        for address, (files, is_running) in saved.items():
            self[address].files, self[address].is_running = dict(files), is_running

    def settled(self) -> None:
        """Whoever is enrolled may enter and runs; of all others nothing opens a door."""
        agents = {str(agent.pk): agent for agent in Agent.objects.exclude(redis_password_hash="")}
        assert set(self._fleet.redis.users) <= {f"agent-{key}" for key in agents}, "access of nobody"
        for box in self.values():
            uuid = box.config().get("uuid")
            assert box.may_enter() == (uuid in agents), (box.address, uuid)
            if uuid in agents:
                assert box.is_running
                assert self._fleet.nodes[uuid].is_up
            assert not box._below(enrolment.BEFORE) or uuid in agents


ADDRESSES = {"host": "10.9.200.1", "server": "10.9.200.2"}
CREDENTIALS: dict[str, Any] = {"ssh_password": PASSWORD}


def _add_host(world: World, _made: Any = None) -> Job:
    address = ADDRESSES["host"]
    return hosts.add(actor=world.admin, cluster=world.cluster, address=address, name="new", **CREDENTIALS)[1]


def _add_server(world: World, _made: Any = None) -> Job:
    address = ADDRESSES["server"]
    return backup_storages.add(actor=world.admin, address=address, path="/srv/more", name="more", **CREDENTIALS)[1]


def _added(add: Callable[[World], Job]) -> Callable[[World], Any]:
    def prepare(world: World) -> Any:
        job = add(world)
        world.settle()
        return world.ended(job).resource_uuid

    return prepare


def _reconnect(service: Any, model: str) -> Callable[[World, Any], Job]:
    def act(world: World, made: Any) -> Job:
        from django.apps import apps

        row = apps.get_model(model).objects.select_related("agent").get(pk=made)
        job: Job = service.reconnect(row, actor=world.admin, **CREDENTIALS)
        return job

    return act


SCENARIOS = {
    "host.add": Scenario(_add_host),
    "host.reconnect": Scenario(_reconnect(hosts, "infra.Host"), _added(_add_host)),
    "backup_storage.add": Scenario(_add_server),
    "backup_storage.reconnect": Scenario(_reconnect(backup_storages, "storage.BackupStorage"), _added(_add_server)),
}
