"""Deleting a host: its machine is shut out and nothing of it stays, or all stays as it was."""

from typing import Any

import pytest

from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.common.models import Connection
from cloud.common.wire import Failure
from cloud.infra import enrolment
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Host, HostState
from cloud.infra.services import capacity, hosts
from cloud.jobs.models import Job, JobState
from tests.cloud.infra.enrolling import Line, nothing_stays
from tests.factories.infra import HostFactory

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_no_users_of_other_tests"),
]


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
