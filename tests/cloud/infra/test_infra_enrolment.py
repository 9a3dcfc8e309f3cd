"""Adding, reconnecting and deleting a host, from the service to the files on a machine that takes SSH."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Problem
from cloud.common.models import Connection
from cloud.common.wire import Answer, Command, Failure, Hello
from cloud.infra import enrolment
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Cluster, Host, HostCapacity, HostState, Hypervisor
from cloud.infra.services import capacity, connection, hosts
from cloud.infra.workflows.enrol_host import AddHost
from cloud.infra.workflows.steps import ENROL
from cloud.jobs import agents, engine, services, sweep
from cloud.jobs.models import Job, JobState
from tests.cloud.infra.machine import Machine, stranger_key
from tests.factories.infra import ClusterFactory, HostFactory

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace"),
    pytest.mark.django_db(transaction=True),
]

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


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    made = Machine(folder)
    yield made
    made.stop()


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


@pytest.fixture
def line(store: Any, monkeypatch: pytest.MonkeyPatch) -> Line:
    wires = Line()
    for module in (engine, services, sweep):
        monkeypatch.setattr(module, "kick", lambda job, queue="control": wires.kicks.append((job, queue)))
    monkeypatch.setattr(
        agents, "send_command", lambda agent, command, is_bulk: wires.commands.append((str(agent), command))
    )
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


def add(cluster: Cluster, machine: Machine, actor: Actor, line: Line, **options: Any) -> tuple[Host, Job]:
    options = {"ssh_password": machine.password, **options} if "ssh_private_key" not in options else options
    given = {"address": machine.address, "ssh_port": machine.port, "name": "one", **options}
    (host,), job = hosts.add(actor=actor, cluster=cluster, **given)
    line.run()
    return host, Job.objects.get(pk=job.pk)


def opens(store: Any, config: dict[str, Any]) -> bool:
    """Whether Redis lets in whoever has this agent.json."""
    port = store.connection_pool.connection_kwargs["port"]
    client = redis.Redis(port=port, username=config["redis_username"], password=config["redis_password"])
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


@pytest.fixture(autouse=True)
def _no_users_of_other_tests(store: Any) -> None:
    for user in redis_acl.users(store):
        if str(user).startswith("agent-"):
            store.execute_command("ACL", "DELUSER", user)


class TestAdd:
    def test_from_nothing_to_ready(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any]
    ) -> None:
        host, job = add(cluster, machine, actor, line)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        host = Host.objects.select_related("agent").get(pk=host.pk)
        assert (host.state, host.activity, host.connection) == (HostState.READY, "", Connection.CONNECTED)
        assert (host.hostname, host.cpu_threads) == ("one", 4)
        agent = host.agent
        assert agent is not None
        assert (agent.host_key_type, agent.host_key_fingerprint) == ("ssh-ed25519", machine.fingerprint())
        assert machine.left() == FILES
        assert machine.calls() == ["update", "restart mica-agent"]
        self._can_enter(machine, agent, store, places)
        assert store.keys("mica:secret:*") == []
        assert machine.password not in json.dumps(job.context)
        assert list(Host.objects.taking_work()) == [host]

    def _can_enter(self, machine: Machine, agent: Agent, store: Any, places: dict[str, Any]) -> None:
        """What the machine was given opens the platform's doors."""
        path = machine.inside("/etc/mica/agent/agent.json")
        config = json.loads(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600
        assert (config["uuid"], config["kind"], config["hypervisor"]) == (str(agent.pk), "host", "fake")
        assert config["redis_url"] == places["agent_redis_url"]
        assert opens(store, config)
        tokens = [user["bearer_token"] for user in json.loads(Path(places["vmauth_file"]).read_text())["users"]]
        assert config["metrics_token"] in tokens
        assert config["metrics_token"] not in agent.metrics_token_sealed
        certificate = x509.load_pem_x509_certificate(machine.inside("/etc/mica/agent/cert.pem").read_bytes())
        assert f"{certificate.serial_number:x}" == agent.certificate_serial
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [str(agent.pk)]
        assert machine.inside("/etc/mica/agent/ca.pem").read_bytes() == (places["pki"] / "ca.pem").read_bytes()

    def test_by_private_key(self, cluster: Cluster, machine: Machine, actor: Actor, line: Line) -> None:
        _host, job = add(cluster, machine, actor, line, ssh_private_key=machine.private_key)
        assert job.state == JobState.SUCCEEDED

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"ssh_password": "wrong"}, "ssh_secret_wrong"),
            ({"ssh_private_key": stranger_key()}, "ssh_secret_wrong"),
            ({"ssh_user": "nobody"}, "ssh_secret_wrong"),
            ({"ssh_port": 1}, "ssh_refused"),
            ({"address": "no-such-machine.invalid"}, "address_unknown"),
            ({"host_key_fingerprint": "SHA256:" + "A" * 43}, "host_key_changed"),
        ],
    )
    def test_refused_at_the_door(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any],
        given: dict[str, Any], code: str,
    ) -> None:  # fmt: skip
        _host, job = add(cluster, machine, actor, line, **given)
        assert (job.state, job.error["code"]) == (JobState.FAILED, code)
        assert job.error["detail"]["en"]
        assert job.error["advice"]["en"]
        nothing_stays(store, places)
        assert machine.left() == set()

    def test_what_the_machine_lacks_is_named(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any],
        small_agent: Callable[..., None],
    ) -> None:  # fmt: skip
        lack = {"code": "program_missing", "detail": "The machine lacks qemu.", "advice": "apt-get install qemu",
                "packages": ["qemu"]}  # fmt: skip
        small_agent([lack])
        _host, job = add(cluster, machine, actor, line)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "packages_missing")
        assert "apt-get install qemu" in job.error["detail"]["en"]
        nothing_stays(store, places)
        assert machine.left() == set()

    def test_an_agent_that_does_not_start(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(enrolment, "bundle", lambda: b"raise SystemExit('no')")
        _host, job = add(cluster, machine, actor, line)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "command_failed")
        nothing_stays(store, places)
        assert machine.left() == set()

    def test_an_agent_that_never_speaks(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any]
    ) -> None:
        line.says_hello = False
        _host, job = add(cluster, machine, actor, line)
        assert job.waiting
        Job.objects.update(step_deadline_at="2020-01-01T00:00:00Z")
        sweep.run()
        line.run()
        job.refresh_from_db()
        assert (job.state, job.error["code"]) == (JobState.FAILED, "timed_out")
        nothing_stays(store, places)
        assert machine.left() == set()
        assert machine.calls()[-1] == "update"

    @pytest.mark.parametrize("position", range(len(ENROL)))
    def test_failing_at_any_step_leaves_nothing(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, places: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch, position: int,
    ) -> None:  # fmt: skip
        step = ENROL[position]
        monkeypatch.setattr(step, "applies", lambda self, ctx: True)
        self._break(monkeypatch, step)
        _host, job = add(cluster, machine, actor, line)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "broken_here")
        nothing_stays(store, places)
        assert machine.left() == set()

    def _break(self, monkeypatch: pytest.MonkeyPatch, step: Any) -> None:
        name = "is_met" if hasattr(step, "is_met") else "run"
        does = getattr(step, name)

        def fails(self: Any, ctx: Any) -> None:
            """Fails as late as it can: when all is done."""
            if name == "run":
                does(self, ctx)
            raise Problem("broken", code="broken_here")

        monkeypatch.setattr(step, name, fails)

    def test_a_step_done_twice_is_a_step_done_once(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, store: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for step in ENROL:
            if hasattr(step, "on_machine"):
                does = step.run
                monkeypatch.setattr(
                    step, "run", lambda self, ctx, does=does: (does(self, ctx), does(self, ctx)), raising=True
                )
        _host, job = add(cluster, machine, actor, line)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        assert machine.left() == FILES

    def test_the_same_machine_twice(self, cluster: Cluster, machine: Machine, actor: Actor, line: Line) -> None:
        add(cluster, machine, actor, line)
        with pytest.raises(Conflict) as caught:
            add(cluster, machine, actor, line)
        assert caught.value.code == "address_in_use"
        # Under another name it is found out when it is reached, and stays as it is.
        _host, job = add(cluster, machine, actor, line, address="127.0.0.2", name="two")
        assert (job.state, job.error["code"]) == (JobState.FAILED, "ssh_refused")
        _host, job = add(cluster, machine, actor, line, address="localhost", name="two")
        assert (job.state, job.error["code"]) == (JobState.FAILED, "already_enrolled")
        assert machine.left() == FILES
        assert Host.objects.count() == 1

    def test_the_real_agent_file(
        self, cluster: Cluster, machine: Machine, actor: Actor, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The agent as it is built answers preflight and csr there; its process is a lab matter."""
        monkeypatch.undo()
        line_again = Line()
        for module in (engine, services, sweep):
            monkeypatch.setattr(module, "kick", lambda job, queue="control": line_again.kicks.append((job, queue)))
        _host, job = add(cluster, machine, actor, line_again)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        assert machine.inside("/etc/mica/agent/key.pem").stat().st_mode & 0o777 == 0o600


class TestReconnect:
    @pytest.fixture
    def host(self, cluster: Cluster, machine: Machine, actor: Actor, line: Line) -> Host:
        add(cluster, machine, actor, line)
        made: Host = Host.objects.select_related("agent", "cluster__zone").get()
        return made

    def reconnect(self, host: Host, machine: Machine, actor: Actor, line: Line, **given: Any) -> Job:
        given = {"ssh_password": machine.password, **given} if "ssh_private_key" not in given else given
        job = hosts.reconnect(host, actor=actor, **given)
        line.run()
        return Job.objects.get(pk=job.pk)

    def test_new_access_and_the_old_is_gone(
        self, host: Host, machine: Machine, actor: Actor, line: Line, store: Any
    ) -> None:
        path = machine.inside("/etc/mica/agent/agent.json")
        before = json.loads(path.read_text())
        job = self.reconnect(host, machine, actor, line, ssh_private_key=machine.private_key)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        after = json.loads(path.read_text())
        assert (after["uuid"], after["metrics_token"]) == (before["uuid"], before["metrics_token"])
        assert opens(store, after)
        assert not opens(store, before)
        assert machine.left() == FILES
        assert Agent.objects.get().certificate_serial != host.agent.certificate_serial  # type: ignore[union-attr]

    def test_a_failure_leaves_the_agent_that_was(
        self, host: Host, machine: Machine, actor: Actor, line: Line, store: Any
    ) -> None:
        names = ("/etc/mica/agent/agent.json", "/etc/mica/agent/cert.pem", "/etc/mica/agent/key.pem")
        before = {name: machine.inside(name).read_bytes() for name in names}
        line.says_hello = False
        job = hosts.reconnect(host, actor=actor, ssh_password=machine.password)
        line.run()
        Job.objects.filter(pk=job.pk).update(step_deadline_at="2020-01-01T00:00:00Z")
        sweep.run()
        line.run()
        job.refresh_from_db()
        assert (job.state, job.error["code"]) == (JobState.FAILED, "timed_out")
        assert {name: machine.inside(name).read_bytes() for name in names} == before
        config = json.loads(before[names[0]])
        assert opens(store, config)
        assert machine.left() == FILES
        agent = Agent.objects.get()
        assert agent.certificate_serial == host.agent.certificate_serial  # type: ignore[union-attr]
        assert Host.objects.get().state == HostState.READY

    def test_a_changed_host_key_must_be_confirmed(self, host: Host, machine: Machine, actor: Actor, line: Line) -> None:
        machine.stop()
        machine.new_host_key()
        machine.start()
        job = self.reconnect(host, machine, actor, line)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "host_key_changed")
        assert job.error["host_key_fingerprint"] == machine.fingerprint()
        assert Agent.objects.get().host_key_fingerprint == host.agent.host_key_fingerprint  # type: ignore[union-attr]
        host = Host.objects.select_related("agent", "cluster__zone").get()
        shown = job.error["host_key_fingerprint"]
        job = self.reconnect(host, machine, actor, line, host_key_fingerprint=shown)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        agent = Agent.objects.get()
        assert (agent.host_key_type, agent.host_key_fingerprint) == ("ssh-ed25519", machine.fingerprint())

    def test_a_wrong_secret_changes_nothing(self, host: Host, machine: Machine, actor: Actor, line: Line) -> None:
        job = self.reconnect(host, machine, actor, line, ssh_password="wrong", ssh_user="root")
        assert (job.state, job.error["code"]) == (JobState.FAILED, "ssh_secret_wrong")
        assert machine.left() == FILES


class TestDelete:
    @pytest.fixture
    def host(self, line: Line, places: dict[str, Any], store: Any) -> Host:
        made: Host = HostFactory(agent__redis_password_hash="a" * 64)
        redis_acl.grant(store, str(made.agent_id), "a" * 64)
        enrolment.give_token(made.agent)  # type: ignore[arg-type]
        return made

    def delete(self, host: Host, actor: Actor, line: Line) -> Job:
        job = hosts.delete(host, actor=actor)
        line.run()
        return Job.objects.get(pk=job.pk)

    def test_nothing_stays(self, host: Host, actor: Actor, line: Line, store: Any, places: dict[str, Any]) -> None:
        assert self.delete(host, actor, line).state == JobState.SUCCEEDED
        nothing_stays(store, places)

    def test_a_silent_machine_is_only_shut_out(
        self, host: Host, actor: Actor, line: Line, store: Any, places: dict[str, Any]
    ) -> None:
        Agent.objects.update(connection=Connection.DISCONNECTED)
        line.failure = Failure("failed", "must_not_be_asked", "")
        assert self.delete(host, actor, line).state == JobState.SUCCEEDED
        nothing_stays(store, places)

    def test_an_agent_that_refuses_keeps_its_host(self, host: Host, actor: Actor, line: Line, store: Any) -> None:
        line.failure = Failure("failed", "will_not", "no")
        job = self.delete(host, actor, line)
        assert (job.state, job.error["code"]) == (JobState.FAILED, "will_not")
        host = Host.objects.select_related("cluster__zone").get()
        assert (host.activity, host.state) == ("", HostState.READY)
        assert redis_acl.user_name(str(host.agent_id)) in redis_acl.users(store)
        assert capacity.take(host, cpu=1, memory_bytes=1)

    def test_not_while_something_is_on_it(self, host: Host, actor: Actor) -> None:
        capacity.take(host, cpu=1, memory_bytes=1)
        with pytest.raises(Conflict) as caught:
            hosts.delete(host, actor=actor)
        assert caught.value.code == "in_use"
        assert capacity.take(host, cpu=1, memory_bytes=1)  # open again: nothing was begun

    def test_not_while_it_is_added(self, host: Host, actor: Actor) -> None:
        host.state = HostState.NEW
        host.save()
        with pytest.raises(Conflict):
            hosts.delete(host, actor=actor)


def test_the_steps_speak() -> None:
    """Every step has a word for the user."""
    assert all(str(step.label) for step in AddHost.steps)
