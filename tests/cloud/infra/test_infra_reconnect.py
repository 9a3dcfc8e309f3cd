"""Reconnecting a host: its machine gets new access, or keeps what it had."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from cloud.common.actor import Actor
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Cluster, Host, HostState
from cloud.infra.services import connection, hosts
from cloud.jobs import sweep
from cloud.jobs.models import Job, JobState
from tests.cloud.infra.enrolling import FILES, Line, add, opens
from tests.cloud.infra.machine import Machine

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_no_users_of_other_tests"),
]


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

    def test_without_its_secret_nothing_is_changed(
        self, host: Host, machine: Machine, actor: Actor, line: Line, store: Any
    ) -> None:
        before = self.config(machine)
        job = hosts.reconnect(host, actor=actor, ssh_password=machine.password)
        store.delete(*store.keys("mica:secret:*"))
        line.run()
        job.refresh_from_db()
        assert (job.state, job.error["code"]) == (JobState.FAILED, "secret_expired")
        assert self.config(machine) == before
        assert opens(store, before)
        assert Agent.objects.get().spare_password_hashes == []

    def test_a_machine_that_cannot_be_put_back_is_not_shut_out(
        self, host: Host, machine: Machine, actor: Actor, line: Line, store: Any
    ) -> None:
        """The secret is gone when the job fails: the machine has its new access, and keeps it."""
        old = self.config(machine)
        self.fail_late(host, machine, actor, line, lambda: store.delete(*store.keys("mica:secret:*")))
        new = self.config(machine)
        assert new["redis_password"] != old["redis_password"]
        assert opens(store, new)
        assert opens(store, old)
        for user in redis_acl.users(store):  # a Redis that lost its users has both again
            if str(user).startswith("agent-"):
                store.execute_command("ACL", "DELUSER", user)
        store.delete(connection.ACCESS_KEY)
        connection.watch()
        assert opens(store, new)
        assert opens(store, old)
        line.says_hello = True
        host = Host.objects.select_related("agent", "cluster__zone").get()
        assert self.reconnect(host, machine, actor, line).state == JobState.SUCCEEDED
        assert opens(store, self.config(machine))
        assert not opens(store, new)
        assert not opens(store, old)
        assert Agent.objects.get().spare_password_hashes == []
        assert machine.left() == FILES

    def test_a_copy_that_opens_nothing_is_not_brought_back(
        self, host: Host, machine: Machine, actor: Actor, line: Line, store: Any
    ) -> None:
        """An earlier reconnect could not remove what it had put aside: its access is long gone."""
        present = self.config(machine)
        aside = machine.inside("/etc/mica/agent.before/config")
        aside.mkdir(parents=True)
        (aside / "agent.json").write_text(json.dumps({**present, "redis_password": "of long ago"}))
        self.fail_late(host, machine, actor, line, lambda: None)
        assert self.config(machine) == present
        assert opens(store, present)
        assert machine.left() == FILES

    def config(self, machine: Machine) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(machine.inside("/etc/mica/agent/agent.json").read_text())
        return found

    def fail_late(
        self, host: Host, machine: Machine, actor: Actor, line: Line, meanwhile: Callable[[], object]
    ) -> None:
        """A reconnect whose agent never speaks; `meanwhile` happens while it is waited for."""
        line.says_hello = False
        job = hosts.reconnect(host, actor=actor, ssh_password=machine.password)
        line.run()
        meanwhile()
        Job.objects.filter(pk=job.pk).update(step_deadline_at="2020-01-01T00:00:00Z")
        sweep.run()
        line.run()
        job.refresh_from_db()
        assert (job.state, job.error["code"]) == (JobState.FAILED, "timed_out")
