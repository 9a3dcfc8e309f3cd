"""Hosts and networks that fail while instances are made and moved through their lives."""

import time
from typing import Any

import pytest
from django.utils import timezone

from cloud.common.driver import Rejected
from cloud.common.errors import Conflict
from cloud.common.wire import Failure
from cloud.infra import enrolment
from cloud.infra.models import Agent, DesiredSection, Host
from cloud.infra.services import desired, hosts
from cloud.jobs import sweep
from cloud.jobs.commands import AGENT_LOST_AFTER_S
from cloud.jobs.models import Job, JobState
from compute.messages import StartDomain
from compute.models import Instance
from compute.services import instances
from compute.services.instances import NicWish
from storage.models import Volume
from tests.compute.world import World
from tests.network import factories as networks


def test_one_of_several_fails_alone(two_hosts: World) -> None:
    made, parent = two_hosts.begin("web-{n}", count=4)
    away = made[1].host
    obey = two_hosts.machines.obey

    def refuse(command: Any, agent: str) -> Any:
        is_start = command.task == StartDomain.kind and command.direction == "run"
        return Failure("rejected", "no_kvm", "no") if is_start and agent == str(away.agent_id) else obey(command, agent)

    two_hosts.machines.obey = refuse  # type: ignore[method-assign]
    two_hosts.settle()
    ended = two_hosts.ended(parent)
    assert (ended.state, ended.percent, ended.error["code"]) == (JobState.FAILED, 100, "some_failed")
    assert sorted(ended.children.values_list("state", flat=True)) == ["failed"] * 2 + ["succeeded"] * 2
    assert Instance.objects.filter(state="running").count() == Instance.objects.count() == 2
    two_hosts.expect_sums()


def test_a_start_that_cannot_be_taken_back_is_settled_by_the_next_inventory(world: World) -> None:
    instance = world.stopped()
    world.machines.obey = lambda command, agent: Failure("failed", "broken", "broken")  # type: ignore[method-assign]
    job = world.act(instances.start, instance)
    instance = world.fresh(instance)
    assert (job.state, instance.state, instance.is_reserved) == (JobState.STUCK, "unknown", True)
    assert instance.state_reason
    world.tell_inventory()
    instance = world.fresh(instance)
    assert (instance.state, instance.is_reserved, instance.state_reason) == ("stopped", False, "")
    world.expect_sums()


def test_a_create_that_cannot_be_taken_back_keeps_what_it_has(world: World) -> None:
    obey = world.machines.obey

    def refuse(command: Any, agent: str) -> Any:
        is_refused = command.task == StartDomain.kind or command.direction == "undo"
        return Failure("failed", "broken", "broken") if is_refused else obey(command, agent)

    world.machines.obey = refuse  # type: ignore[method-assign]
    (instance,), job = world.begin()
    world.settle()
    assert (world.ended(job).state, world.fresh(instance).state) == (JobState.STUCK, "unknown")
    assert Volume.objects.count() == 2
    world.expect_sums()
    world.machines.obey = obey  # type: ignore[method-assign]
    world.act(instances.destroy, instance)
    world.act(instances.expunge, instance)
    world.expect_sums()
    assert world.on_machines()["files"] == []


def test_an_act_whose_host_is_away_fails_in_time_and_nothing_changes(world: World) -> None:
    instance = world.create()
    before = world.rows()
    world.machines.away.add(str(world.host.agent_id))
    job = instances.reboot(instance, actor=world.admin)
    world.settle()
    Job.objects.filter(pk=job.pk).update(step_deadline_at=timezone.now())
    sweep.run()
    world.settle()
    ended = world.ended(job)
    assert (ended.state, ended.error["code"]) == (JobState.FAILED, "timed_out")
    assert world.rows() == before


def test_a_host_lost_in_the_middle_of_a_create(world: World) -> None:
    """Its reservations stay until it is back: only then is it known that nothing is left on it."""
    before = world.ledger()
    (instance,), job = world.begin()
    agent = str(world.host.agent_id)
    deliver = world.machines.deliver

    def cut_off(to: str, command: Any) -> None:
        if command.task == StartDomain.kind:
            world.machines.away.add(agent)
        deliver(to, command)

    world.line.deliver = cut_off  # type: ignore[method-assign]
    world.settle()
    Job.objects.filter(pk=job.pk).update(step_deadline_at=timezone.now())
    sweep.run()
    world.settle()
    assert world.ended(job).state == JobState.FAILED
    kept = world.fresh(instance)
    assert (kept.is_reserved, kept.activity) == (True, "cleaning_up")
    world.expect_sums()
    with pytest.raises(Conflict) as refused:
        instances.destroy(instance, actor=world.admin)
    assert (refused.value.code, refused.value.extra["machines"]) == ("clean_up_pending", [world.host.agent.name])
    world.line.deliver = deliver  # type: ignore[method-assign]
    world.machines.away.clear()
    for row in DesiredSection.objects.behind():
        desired.send(row.agent_id, row.section)  # as after its hello
    sweep.run()
    world.settle()
    assert not Instance.objects.exists()
    assert world.ledger() == before


def test_a_network_that_the_host_cannot_make_fails_with_its_reason(world: World) -> None:
    before = world.rows()
    world.machines.network(world.host.agent).failing[str(world.l3.pk)] = Rejected("interface_missing", "no eth2")
    _made, job = world.begin()
    world.settle()
    ended = world.ended(job)
    assert (ended.state, ended.error["code"]) == (JobState.FAILED, "interface_missing")
    assert world.rows() == before


def test_a_silent_machine_ends_the_step_long_before_its_deadline(world: World) -> None:
    """It is asked to stop a guest, which may take an hour; nobody waits that hour for a machine that is gone."""
    instance = world.create()
    before = world.rows()
    agent = str(world.host.agent_id)
    world.machines.away.add(agent)
    job = instances.stop(instance, actor=world.admin)
    world.settle()
    sweep.run()
    world.settle()
    assert Job.objects.get(pk=job.pk).state == JobState.RUNNING  # it may be back in a moment
    waiting = {key: {**held, "sent_at": time.time() - AGENT_LOST_AFTER_S - 1} for key, held in _waiting(job).items()}
    Job.objects.filter(pk=job.pk).update(waiting=waiting)
    sweep.run()
    world.settle()
    ended = world.ended(job)
    assert (ended.state, ended.error["code"]) == (JobState.FAILED, "agent_lost")
    assert ended.error["outcome"] == "unknown"  # nothing takes a stop back, and it may have been done
    assert world.rows() == before


def _waiting(job: Job) -> Any:
    return Job.objects.get(pk=job.pk).waiting


def test_one_broken_network_is_nobody_elses_trouble(world: World) -> None:
    broken = networks.l3(world.l3.l2, cidr="10.66.0.0/24", name="broken")
    fake = world.machines.network(world.host.agent)
    fake.failing[str(broken.pk)] = Rejected("dnsmasq_failed", "it does not start")
    _made, failing = world.begin("on the broken one", nics=[NicWish(broken)])
    _made, job = world.begin("on another")
    world.settle()
    assert world.ended(failing).error["code"] == "dnsmasq_failed"
    assert world.ended(job).state == JobState.SUCCEEDED
    world.expect_sums()
    fake.failing.clear()
    assert world.create("once it is mended", nics=[NicWish(broken)]).state == "running"


def test_what_dies_while_a_job_is_at_work_on_it_is_seen_when_the_job_ends(world: World) -> None:
    """The event is left to the job, which does not hear of it: the host is asked once more when the job has ended."""
    instance = world.create()
    obey = world.machines.obey

    def obey_and_crash(command: Any, agent: str) -> Any:
        said = obey(command, agent)
        world.machines.hypervisor(agent).crash(str(instance.pk))
        world.tell_event(instance, "stopped", "failed")
        return said

    world.machines.obey = obey_and_crash  # type: ignore[method-assign]
    job = world.act(instances.reboot, instance)
    assert job.state == JobState.SUCCEEDED
    assert world.fresh(instance).state == "stopped"
    world.expect_sums()


def test_a_host_that_never_comes_back_is_deleted_with_what_it_owed(two_hosts: World, monkeypatch: Any) -> None:
    world = two_hosts
    monkeypatch.setattr(enrolment, "revoke", lambda agent: None)
    before = world.rows()
    (instance,), job = world.begin()
    host = world.fresh(instance).host
    world.machines.away.add(str(host.agent_id))
    world.settle()
    Job.objects.filter(pk=job.pk).update(step_deadline_at=timezone.now())
    sweep.run()
    world.settle()
    assert world.ended(job).state == JobState.FAILED
    assert world.fresh(instance).activity == "cleaning_up"
    with pytest.raises(Conflict) as refused:
        hosts.delete(host, actor=world.admin)
    assert refused.value.code == "in_use"  # nobody has seen yet that it is away
    Host.objects.filter(pk=host.pk).update(connection="disconnected")
    Agent.objects.filter(pk=host.agent_id).update(connection="disconnected")
    host.refresh_from_db()
    deletion = hosts.delete(host, actor=world.admin)
    assert world.fresh(instance).activity == "cleaning_up"
    world.settle()
    assert world.ended(deletion).state == JobState.SUCCEEDED
    assert not Instance.objects.exists()
    assert not Volume.objects.exists()
    after = world.rows()
    assert after["addresses"] == before["addresses"]
    assert after["held"] == 0
