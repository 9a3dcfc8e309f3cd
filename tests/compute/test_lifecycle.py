"""Instances through their lives, on hosts in memory: what they are, what they have booked, what is left of them."""

from collections.abc import Callable
from typing import Any

import pytest

from cloud.accounts.services import actors
from cloud.common.errors import Conflict, Missing, NoHostFits, NotPermitted
from cloud.common.models import Connection
from cloud.config import services as config
from cloud.infra.models import Host, HostCapacity
from cloud.infra.services import capacity, hosts
from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import WORKFLOWS
from compute.messages import StartDomain, StopDomain
from compute.models import Instance, InstanceState
from compute.services import instances
from network.models import Nic
from storage.models import Volume
from tests.compute.world import GIB, World
from tests.factories.accounts import member
from tests.factories.compute import InstanceFactory

VERBS: dict[str, tuple[Callable[..., Job], set[str]]] = {
    "start": (instances.start, {"stopped", "created", "crashed"}),
    "stop": (instances.stop, {"running", "paused", "crashed"}),
    "reboot": (instances.reboot, {"running"}),
    "destroy": (instances.destroy, {state for state in InstanceState if state != "destroyed"}),
    "recover": (instances.recover, {"destroyed"}),
    "expunge": (instances.expunge, {"destroyed"}),
}


def host_of(row: Any) -> tuple[int, int]:
    held = HostCapacity.objects.get(host=row)
    return held.cpu_used, held.memory_used_bytes


def test_a_whole_life(world: World) -> None:
    before = world.ledger()
    instance = world.create(cpu=2, memory_bytes=3 * GIB)
    assert (instance.state, instance.activity, instance.is_wanted_running) == ("running", "", True)
    assert host_of(world.host) == (2, 3 * GIB)
    assert world.on_machines()["domains"] == {"host-1": [("vm", "running")]}
    assert world.on_machines()["dhcp"] == {"host-1": ["192.168.50.3"]}

    world.act(instances.reboot, instance)
    assert world.fresh(instance).state == "running"

    world.act(instances.stop, instance)
    instance = world.fresh(instance)
    assert (instance.state, instance.host, instance.last_host, instance.is_wanted_running) == (
        "stopped",
        None,
        world.host,
        False,
    )
    assert host_of(world.host) == (0, 0)
    assert world.on_machines()["dhcp"] == {"host-1": []}
    assert Nic.objects.get().address == "192.168.50.3"
    world.expect_sums()

    world.act(instances.start, instance)
    instance = world.fresh(instance)
    assert (instance.state, instance.host, instance.is_reserved) == ("running", world.host, True)
    assert world.on_machines()["dhcp"] == {"host-1": ["192.168.50.3"]}
    world.expect_sums()

    world.act(instances.destroy, instance)
    instance = world.fresh(instance)
    assert (instance.state, instance.host, instance.is_reserved) == ("destroyed", None, False)
    assert instance.destroyed_at is not None
    assert world.on_machines()["domains"] == {"host-1": []}
    assert Volume.objects.count() == 2
    world.expect_sums()

    world.act(instances.recover, instance)
    instance = world.fresh(instance)
    assert (instance.state, instance.destroyed_at) == ("stopped", None)
    world.act(instances.start, instance)
    assert world.fresh(instance).state == "running"

    world.act(instances.destroy, instance)
    world.act(instances.expunge, instance)
    assert not Instance.objects.exists()
    assert world.ledger() == before
    world.expect_sums()


def test_what_the_host_is_told(world: World) -> None:
    world.create("web 1", ssh_keys=["ssh-ed25519 AAAA me"], user_data="#!/bin/sh\n")
    command = next(command for command in world.line.seen if command.task == StartDomain.kind)
    spec = StartDomain.from_document(command.body).spec
    nic, volumes = Nic.objects.get(), list(Volume.objects.order_by("device_index"))
    assert (spec.name, spec.cpu, spec.memory_bytes) == ("web 1", 1, GIB)
    assert [(volume.uuid, volume.path) for volume in spec.volumes] == [
        (str(volume.pk), f"/srv/primary/volumes/{volume.pk}.qcow2") for volume in volumes
    ]
    assert [(card.mac, card.address) for card in spec.nics] == [(nic.mac, nic.address)]
    assert spec.seed is not None
    assert (spec.seed.hostname, spec.seed.ssh_keys, spec.seed.user_data) == (
        "web-1",
        ("ssh-ed25519 AAAA me",),
        "#!/bin/sh\n",
    )


def test_made_without_being_started(world: World) -> None:
    instance = world.create(is_started=False)
    assert (instance.state, instance.host, instance.last_host) == ("stopped", None, world.host)
    assert host_of(world.host) == (0, 0)
    assert Volume.objects.filter(state="ready").count() == 2
    assert world.on_machines()["domains"] == {"host-1": []}
    world.act(instances.start, instance)
    assert world.fresh(instance).state == "running"
    world.expect_sums()


def test_several_are_one_job_with_children(two_hosts: World) -> None:
    made, parent = two_hosts.begin("web-{n}", count=5)
    assert Job.objects.get(pk=parent.pk).state == JobState.RUNNING
    two_hosts.settle()
    ended = two_hosts.ended(parent)
    assert (ended.state, ended.percent, ended.error) == (JobState.SUCCEEDED, 100, None)
    assert {two_hosts.fresh(instance).state for instance in made} == {"running"}
    assert [len(found) for found in two_hosts.on_machines()["domains"].values()] in ([2, 3], [3, 2])
    two_hosts.expect_sums()


def test_cancelled_before_it_began(world: World) -> None:
    """What was booked with the job is given back, though the job never came to the steps that stand for it."""
    before = world.ledger()
    _made, job = world.begin()
    jobs.cancel(job, actor=world.admin)
    world.settle()
    assert world.ended(job).state == JobState.CANCELLED
    assert world.ledger() == before
    world.expect_sums()


def test_cancelled_with_all_its_children(two_hosts: World) -> None:
    before = two_hosts.ledger()
    _made, parent = two_hosts.begin(count=4)
    jobs.cancel(parent, actor=two_hosts.admin)
    with pytest.raises(Conflict):
        jobs.cancel(Job.objects.get(pk=parent.pk), actor=two_hosts.admin)
    two_hosts.settle()
    ended = two_hosts.ended(parent)
    assert (ended.state, ended.error["code"]) == (JobState.CANCELLED, "cancelled")
    assert two_hosts.ledger() == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", list(InstanceState))
@pytest.mark.django_db
def test_states(verb: str, state: InstanceState) -> None:
    act, allowed = VERBS[verb]
    instance = InstanceFactory(state=state)
    admin = actors.of(member("platform_admin"))
    if state in allowed:
        job = act(instance, actor=admin)
        instance.refresh_from_db()
        assert (job.workflow, job.resource_uuid) == (f"instance.{verb}", instance.pk)
        assert (instance.activity, instance.state) == (WORKFLOWS[job.workflow].activity, state)
        return
    with pytest.raises(Conflict) as caught:
        act(instance, actor=admin)
    assert (caught.value.code, caught.value.extra["state"]) == ("wrong_state", state)
    assert set(caught.value.extra["needed"]) == allowed
    instance.refresh_from_db()
    assert (instance.activity, Job.objects.count()) == ("", 0)


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_act_names_the_job_at_work(still: World, verb: str) -> None:
    (instance,), job = still.begin()
    with pytest.raises(Conflict) as caught:
        VERBS[verb][0](instance, actor=still.admin)
    assert (caught.value.code, caught.value.extra["job"]) == ("busy", f"/api/v1/jobs/{job.pk}/")
    assert caught.value.extra["activity"] == "creating"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.django_db
def test_rights(verb: str) -> None:
    instance = InstanceFactory(state="destroyed" if verb in ("recover", "expunge") else "running")
    act, _states = VERBS[verb]
    with pytest.raises(Missing):
        act(instance, actor=actors.of(member()))
    onlooker = actors.of(member("monitor_only", project=instance.project))
    with pytest.raises(NotPermitted) as caught:
        act(instance, actor=onlooker)
    assert caught.value.extra["permission"] == f"instance.{verb}"


def test_starting_where_the_volumes_are_or_nowhere(two_hosts: World) -> None:
    instance = two_hosts.stopped()
    home, other = instance.last_host, next(host for host in two_hosts.hosts if host != instance.last_host)
    assert capacity.take(home, cpu=0, memory_bytes=8 * GIB)
    with pytest.raises(NoHostFits) as caught:
        instances.start(instance, actor=two_hosts.admin)
    assert [reason["name"] for reason in caught.value.extra["reasons"]] == [home.name]
    assert two_hosts.fresh(instance).activity == ""
    Instance.objects.update(last_host=other)
    capacity.give_back(home, cpu=0, memory_bytes=8 * GIB)
    two_hosts.act(instances.start, instance)
    assert two_hosts.fresh(instance).host == home


def test_a_crashed_one_is_started_with_its_room_booked_once(world: World) -> None:
    instance = world.create()
    Instance.objects.update(state="crashed")
    world.act(instances.start, instance)
    assert (world.fresh(instance).state, host_of(world.host)) == ("running", (1, GIB))
    world.expect_sums()


def test_stopping_gently_and_by_force(world: World) -> None:
    instance = world.create()
    config.change("instance.stop_grace_s", value=7, actor=world.admin)
    world.act(instances.stop, instance)
    world.act(instances.start, instance)
    world.act(instances.stop, instance, is_forced=True)
    asked = [StopDomain.from_document(c.body) for c in world.line.seen if c.task == StopDomain.kind]
    assert [(stop.is_forced, stop.grace_s) for stop in asked] == [(False, 7), (True, 7)]


def test_changes_of_name_and_description(still: World) -> None:
    (instance,), _job = still.begin()
    instances.update(instance, actor=still.admin, description="busy or not")
    instances.update(instance, actor=still.admin, name="new")
    instance = still.fresh(instance)
    assert (instance.name, instance.description, instance.hostname) == ("new", "busy or not", "vm")
    Instance.objects.update(state="destroyed")
    with pytest.raises(Conflict):
        instances.update(instance, actor=still.admin, name="other")
    with pytest.raises(Missing):
        instances.update(instance, actor=actors.of(member()), name="other")


def test_a_host_with_instances_is_not_deleted(world: World) -> None:
    instance = world.create()
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            hosts.delete(Host.objects.get(pk=world.host.pk), actor=world.admin)
        assert caught.value.code == "in_use"
        assert {use["kind"] for use in caught.value.extra["used_by"]} >= {"instance", "volume"}
        if world.fresh(instance).state == "running":
            world.act(instances.destroy, instance)
    assert Host.objects.get(pk=world.host.pk).connection == Connection.CONNECTED
