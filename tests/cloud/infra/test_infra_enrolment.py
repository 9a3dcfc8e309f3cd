"""Adding a host, from the service to the files on a machine that takes SSH."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Problem
from cloud.common.models import Connection
from cloud.infra import enrolment
from cloud.infra.models import Agent, Cluster, Host, HostState
from cloud.infra.workflows.enrol_host import AddHost
from cloud.infra.workflows.steps import ENROL
from cloud.jobs import engine, services, sweep
from cloud.jobs.models import Job, JobState
from tests.cloud.infra.enrolling import FILES, Line, add, nothing_stays, opens
from tests.cloud.infra.machine import Machine, stranger_key

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_no_users_of_other_tests"),
]


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
        assert job.error["detail"]["en"] != job.error["detail"]["zh-hans"]
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


def test_the_steps_speak() -> None:
    """Every step has a word for the user."""
    assert all(str(step.label) for step in AddHost.steps)
