"""What tests of the agent stand on: a PKI, a real Redis over TLS with the agent's own rights, a machine."""

import hashlib
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from cloud.agent.config import AgentConfig
from cloud.agent.journal import Journal
from cloud.agent.registry import Machine
from cloud.common import pki
from cloud.common.wire import Command
from cloud.infra.drivers import redis_acl
from tests.cloud.agent.waiting import free_port, wait_until

PASSWORD = "agent-password"


@pytest.fixture(scope="session")
def pki_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.init(directory)
    pki.issue(directory, "redis", out=directory / "redis", addresses=["127.0.0.1"], dns=["localhost"])
    pki.issue(directory, "control", out=directory / "control", is_client=True)
    return directory


def enrol(pki_dir: Path, directory: Path, agent: str, **settings: Any) -> AgentConfig:
    """Files as enrolment leaves them on a machine, and what the agent reads from them."""
    directory.mkdir(parents=True, exist_ok=True)
    signed = pki.sign_request(pki_dir, pki.request(directory / "key.pem", agent), agent=agent, addresses=["127.0.0.1"])
    (directory / "cert.pem").write_text(signed.certificate)
    (directory / "ca.pem").write_bytes((pki_dir / "ca.pem").read_bytes())
    document = {
        "uuid": agent,
        "kind": "host",
        "address": "127.0.0.1",
        "stream_port": 0,
        "ticket_key": (pki_dir / "ticket.pub").read_text().strip(),
        "hypervisor": "fake",
        **settings,
    }
    (directory / "agent.json").write_text(json.dumps(document))
    return AgentConfig(**document, directory=directory)


@pytest.fixture
def agent_uuid() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def config(pki_dir: Path, tmp_path: Path, agent_uuid: str) -> AgentConfig:
    return enrol(pki_dir, tmp_path / "etc", agent_uuid)


@pytest.fixture
def machine(config: AgentConfig, tmp_path: Path) -> Machine:
    return Machine(config.uuid, config.kind, config, tmp_path / "state")


@pytest.fixture
def journal(machine: Machine) -> Iterator[Journal]:
    made = Journal(machine.state_dir / "journal.sqlite3", machine.uuid)
    yield made
    made.close()


@pytest.fixture
def make_command() -> Callable[..., Command]:
    own_job = f"job-{uuid.uuid4()}"

    def make(task: str = "test.act", **changes: Any) -> Command:
        values: dict[str, Any] = {
            "job": own_job,
            "sequence": 1,
            "resource": "r-1",
            "step": "0",
            "direction": "run",
            "attempt": 1,
            "body": {},
            "deadline": 4e9,
            **changes,
        }
        values.setdefault("key", ":".join(str(values[part]) for part in ("job", "step", "direction", "attempt")))
        return Command(task=task, **values)

    return make


@dataclass
class RedisServer:
    """A Redis of the tests' own: TLS for agents on `port`, a unix socket for control."""

    directory: Path
    pki_dir: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def start(self) -> None:
        options = {
            "port": 0,
            "tls-port": self.port,
            "bind": "127.0.0.1",
            "tls-cert-file": self.pki_dir / "redis.pem",
            "tls-key-file": self.pki_dir / "redis.key",
            "tls-ca-cert-file": self.pki_dir / "ca.pem",
            "tls-auth-clients": "yes",
            "unixsocket": self.socket,
            "dir": self.directory,
            "save": "",
            "aclfile": self.directory / "users.acl",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        wait_until(self._answers, 10)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory, pki_dir: Path) -> Iterator[RedisServer]:
    directory = tmp_path_factory.mktemp("redis")
    (directory / "users.acl").touch()
    server = RedisServer(directory, pki_dir, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def linked(redis_server: RedisServer, pki_dir: Path, tmp_path: Path, agent_uuid: str) -> AgentConfig:
    """An agent that may speak to Redis, with the rights that enrolment gives it and no more."""
    control = redis_server.client()
    redis_acl.grant(control, agent_uuid, hashlib.sha256(PASSWORD.encode()).hexdigest())
    return enrol(
        pki_dir,
        tmp_path / "etc",
        agent_uuid,
        redis_url=redis_server.url,
        redis_username=redis_acl.user_name(agent_uuid),
        redis_password=PASSWORD,
    )
