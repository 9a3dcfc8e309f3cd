"""What tests of infrastructure stand on: a real Redis with users, a PKI, messages kept instead of sent."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cloud.celery import app
from cloud.common import pki
from cloud.common.wire import Desired
from cloud.infra import enrolment, secrets
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Cluster, Hypervisor
from cloud.jobs import agents, engine, leases, services, sweep
from tests.cloud.agent.waiting import free_port, wait_until
from tests.cloud.infra.enrolling import BUNDLE, Line
from tests.cloud.infra.machine import Machine
from tests.factories.infra import ClusterFactory


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis of our own on loopback, with a file for its users."""
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    (directory / "users.acl").touch()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    process = subprocess.Popen(
        ["redis-server", *arguments, "--aclfile", str(directory / "users.acl")], stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port)
        wait_until(lambda: _answers(client))
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="session")
def pki_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.init(directory)
    return directory


@pytest.fixture
def store(redis_port: int, settings: Any) -> Iterator[Any]:
    """Control's Redis, empty."""
    settings.REDIS_URL = f"redis://127.0.0.1:{redis_port}/0"
    agents.redis.cache_clear()
    agents.redis().flushall()
    yield agents.redis()
    agents.redis.cache_clear()


@pytest.fixture
def places(pki_dir: Path, settings: Any, tmp_path: Path) -> dict[str, Any]:
    """`settings.MICA` of a small installation; what a test changes in it holds for that test."""
    settings.MICA = {
        **settings.MICA,
        "pki": pki_dir,
        "vmauth_file": str(tmp_path / "auth.yml"),
        "vmauth_reload_url": "",
        "metrics_url": "http://127.0.0.1:8428",
        "agent_redis_url": "rediss://10.99.0.1:6380/0",
        "agent_metrics_url": "https://10.99.0.1:8427",
        "allow_loopback_hosts": False,
    }
    secrets._box.cache_clear()
    mica: dict[str, Any] = settings.MICA
    return mica


class Sent:
    """What would have gone out: task messages, desired sections, jobs' topics that were woken."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, dict[str, Any]]] = []
        self.desired: list[Desired] = []
        self.woken: list[str] = []

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """The task messages so far, once."""
        taken, self.tasks = self.tasks, []
        return taken


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    kept = Sent()

    def send_task(name: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        kept.tasks.append((name, kwargs or {}))

    monkeypatch.setattr(app, "send_task", send_task)
    monkeypatch.setattr(agents, "send_desired", kept.desired.append)
    monkeypatch.setattr(engine, "wake", kept.woken.append)
    return kept


@pytest.fixture
def on_commit(django_capture_on_commit_callbacks: Callable[..., Any]) -> Callable[[], Any]:
    """A block after which what waits for a commit is done."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    made = Machine(folder)
    yield made
    made.stop()


@pytest.fixture
def line(store: Any, monkeypatch: pytest.MonkeyPatch) -> Line:
    wires = Line()
    for module in (engine, services, sweep):
        monkeypatch.setattr(module, "kick", lambda job, queue="control": wires.kicks.append((job, queue)))
    monkeypatch.setattr(
        agents, "send_command", lambda agent, command, is_bulk: wires.commands.append((str(agent), command))
    )
    monkeypatch.setattr(leases, "LOOK_AFTER_S", 0.0)
    return wires


@pytest.fixture
def small_agent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a few lines of Python in the real agent's place; what they miss on the machine is the test's."""

    def put(missing: Any = ()) -> None:
        text = BUNDLE.format(missing=json.dumps(list(missing)))
        monkeypatch.setattr(enrolment, "bundle", lambda: text.encode())

    put()
    return put


@pytest.fixture
def cluster(line: Line, places: dict[str, Any], small_agent: Any) -> Cluster:
    places["allow_loopback_hosts"] = True
    made: Cluster = ClusterFactory(hypervisor=Hypervisor.FAKE)
    return made


@pytest.fixture
def _no_users_of_other_tests(store: Any) -> None:
    for user in redis_acl.users(store):
        if str(user).startswith("agent-"):
            store.execute_command("ACL", "DELUSER", user)
