"""Adding hosts in tests: workers and agents that do as they are told, and what must be there or gone after."""

import json
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloud.common.actor import Actor
from cloud.common.wire import Answer, Command, Failure, Hello
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Cluster, Host, HostCapacity
from cloud.infra.services import connection, hosts
from cloud.jobs import engine
from cloud.jobs.models import Job
from tests.cloud.infra.machine import Machine

FACTS = {"hostname": "one", "cpu_threads": 4, "memory_bytes": 8 << 30}
BUNDLE = """\
import json, subprocess, sys
if sys.argv[1] == "preflight":
    print(json.dumps({{"missing": {missing}}}, indent=1))
elif sys.argv[1] == "csr":
    import os
    os.makedirs("/etc/mica/agent", exist_ok=True)
    key = "/etc/mica/agent/key.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]
    subprocess.run(make, check=True)
    subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=" + sys.argv[3]], check=True)
"""
FILES = {
    "/opt/mica/agent.pyz",
    "/etc/mica/agent/agent.json",
    "/etc/mica/agent/ca.pem",
    "/etc/mica/agent/cert.pem",
    "/etc/mica/agent/key.pem",
    "/etc/mica/supervisor.d/mica-agent.conf",
}


class Line:
    """Workers and agents: jobs go on when told to; the agent answers commands and says hello as the test wants."""

    def __init__(self) -> None:
        self.kicks: list[tuple[Any, str]] = []
        self.commands: list[tuple[str, Command]] = []
        self.says_hello = True
        self.failure: Failure | None = None

    def run(self) -> None:
        while self.kicks or self.commands:
            if self.commands:
                agent, command = self.commands.pop(0)
                engine.answer(Answer(command.key, agent, {}, self.failure).to_document())
                continue
            uuid, queue = self.kicks.pop(0)
            engine.advance(uuid, queue)
            for waiting in Job.objects.live().values_list("waiting", flat=True):
                for topic in waiting:
                    if self.says_hello and topic.startswith("hello:"):
                        connection.hello(Hello(topic[6:], "0.1.0", "boot-1", FACTS).to_document())


def add(cluster: Cluster, machine: Machine, actor: Actor, line: Line, **options: Any) -> tuple[Host, Job]:
    options = {"ssh_password": machine.password, **options} if "ssh_private_key" not in options else options
    given = {"address": machine.address, "ssh_port": machine.port, "name": "one", **options}
    (host,), job = hosts.add(actor=actor, cluster=cluster, **given)
    line.run()
    return host, Job.objects.get(pk=job.pk)


def opens(store: Any, config: dict[str, Any]) -> bool:
    """Whether Redis lets in whoever has this agent.json."""
    port = store.connection_pool.connection_kwargs["port"]
    user, password = config["redis_username"], config["redis_password"]
    client = redis.Redis(port=port, username=user, password=password, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return False


def nothing_stays(store: Any, places: dict[str, Any]) -> None:
    assert not Host.objects.exists()
    assert not Agent.objects.exists()
    assert not HostCapacity.objects.exists()
    assert [user for user in redis_acl.users(store) if str(user).startswith("agent-")] == []
    assert store.keys("mica:secret:*") == []
    auth = Path(places["vmauth_file"])
    if auth.exists():
        assert len(json.loads(auth.read_text())["users"]) == 1  # nobody's, who is always there
