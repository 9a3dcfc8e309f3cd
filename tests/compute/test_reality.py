"""What hosts say of their domains settles what the rows say; jobs at work, and strangers, are left alone."""

from typing import Any
from uuid import uuid4

import pytest

from cloud.common.errors import Unavailable
from cloud.common.wire import Failure, Observation
from cloud.config import services as config
from cloud.events.models import AuditRecord
from cloud.infra import observations
from cloud.infra.models import Agent, Host, HostCapacity
from cloud.infra.services import capacity
from cloud.infra.signals import agent_connected, agent_disconnected
from cloud.jobs.models import Job
from compute import tasks
from compute.agent import hypervisor
from compute.messages import DomainEvent
from compute.models import Instance
from compute.services import instances, reality
from network.models import Nic
from tests.compute.world import GIB, World


def crash(world: World, instance: Instance) -> None:
    """Its process dies, and the host says so."""
    world.machines.hypervisor(world.host.agent).crash(str(instance.pk))
    world.tell_event(instance, "stopped", "failed")


def reboot_host(world: World) -> None:
    """All domains are gone as if by a power cut; the agent is back and says so."""
    hypervisor = world.machines.hypervisor(world.host.agent)
    for domain in hypervisor.inventory():
        if domain.state == "running":
            hypervisor.crash(domain.uuid)
    new_boot(world)
    world.settle()


def new_boot(world: World) -> None:
    """The agent is back after its machine was restarted."""
    agent = world.host.agent
    agent.boot_id = str(uuid4())
    agent.save(update_fields=["boot_id"])
    reality.host_back(agent)


class TestEvents:
    def test_killed_behind_our_back(self, world: World) -> None:
        instance = world.create()
        crash(world, instance)
        instance = world.fresh(instance)
        assert (instance.state, instance.host, instance.last_host) == ("stopped", None, world.host)
        assert instance.is_wanted_running  # nobody asked for this
        world.expect_sums()
        world.settle()
        assert world.on_machines()["dhcp"] == {"host-1": []}
        record = AuditRecord.objects.get(action="instance.observed")
        assert record.detail == {"from": "running", "to": "stopped", "because": "failed"}
        world.act(instances.start, instance)
        assert world.fresh(instance).state == "running"
        world.expect_sums()

    @pytest.mark.parametrize("reason", ["shutdown", "destroyed", "crashed"])
    def test_of_its_own_will(self, world: World, reason: str) -> None:
        instance = world.create()
        world.tell_event(instance, "stopped", reason)
        instance = world.fresh(instance)
        assert (instance.state, instance.is_wanted_running) == ("stopped", False)

    @pytest.mark.parametrize(("said", "state"), [("paused", "paused"), ("suspended", "paused"), ("crashed", "crashed")])
    def test_paused_and_crashed_keep_their_room(self, world: World, said: str, state: str) -> None:
        instance = world.create()
        world.tell_event(instance, said, "io_error")
        instance = world.fresh(instance)
        assert (instance.state, instance.is_reserved, instance.host) == (state, True, world.host)
        world.tell_event(instance, "running", "resumed")
        assert world.fresh(instance).state == "running"
        world.expect_sums()

    def test_switched_on_behind_our_back(self, world: World) -> None:
        """It takes its room, and its DHCP entry."""
        instance = world.stopped()
        world.tell_event(instance, "running", "booted")
        instance = world.fresh(instance)
        assert (instance.state, instance.host, instance.is_reserved) == ("running", world.host, True)
        assert Nic.objects.get().host == world.host
        world.expect_sums()

    def test_switched_on_where_there_is_no_room(self, world: World) -> None:
        instance = world.stopped()
        assert capacity.take(world.host, cpu=0, memory_bytes=8 * GIB)
        world.tell_event(instance, "running", "booted")
        instance = world.fresh(instance)
        assert (instance.state, instance.host, instance.is_reserved) == ("running", world.host, False)
        world.act(instances.stop, instance)
        assert HostCapacity.objects.get().memory_used_bytes == 8 * GIB  # what was not taken is not given back

    def test_said_twice_is_said_once(self, world: World) -> None:
        instance = world.create()
        for _ in range(3):
            world.tell_event(instance, "stopped", "failed")
        assert AuditRecord.objects.filter(action="instance.observed").count() == 1
        world.expect_sums()

    def test_a_job_at_work_is_left_to_it(self, world: World) -> None:
        instance = world.create()
        job = instances.stop(instance, actor=world.admin)
        world.tell_event(instance, "stopped", "shutdown")
        world.tell_inventory()
        assert (world.fresh(instance).state, world.fresh(instance).activity) == ("running", "stopping")
        world.settle()
        assert world.ended(job).state == "succeeded"
        world.expect_sums()

    def test_strangers_and_what_is_elsewhere(self, two_hosts: World) -> None:
        instance = two_hosts.create()
        elsewhere = next(host for host in two_hosts.hosts if host != instance.host)
        before = two_hosts.ledger()
        two_hosts.tell_event(instance, "stopped", "failed", host=elsewhere)
        two_hosts.tell_event(Instance(name="stranger"), "running", "booted")
        two_hosts.tell_event(instance, "unknown", "whatever", host=instance.host)
        assert two_hosts.ledger() == before

    def test_the_recycle_bin_is_left_alone(self, world: World) -> None:
        instance = world.destroyed()
        world.tell_event(instance, "running", "booted")
        assert world.fresh(instance).state == "destroyed"


class TestInventories:
    def test_all_as_it_should_be(self, world: World) -> None:
        world.create("one"), world.stopped("two"), world.destroyed("three")
        before = world.ledger()
        world.tell_inventory()
        assert world.ledger() == before
        assert not AuditRecord.objects.filter(action="instance.observed").exists()

    def test_who_is_not_there_is_stopped(self, world: World) -> None:
        instance = world.create()
        world.machines.hypervisor(world.host.agent).remove(str(instance.pk))
        world.tell_inventory()
        assert world.fresh(instance).state == "stopped"
        world.expect_sums()

    def test_who_runs_is_running(self, world: World) -> None:
        instance = world.create()
        Instance.objects.update(state="unknown")
        world.tell_inventory()
        assert world.fresh(instance).state == "running"

    def test_what_was_settled_a_moment_ago_is_left_to_the_next(self, world: World) -> None:
        instance = world.create()
        world.machines.hypervisor(world.host.agent).remove(str(instance.pk))
        report = world.machines.hypervisor(world.host.agent).inventory()
        reality.inventory(world.host.agent, reality.DomainInventory(report))
        assert world.fresh(instance).state == "running"

    def test_strangers_are_never_touched(self, world: World) -> None:
        instance = world.create()
        stranger = world.machines.hypervisor(world.host.agent)
        stranger.add_foreign("99999999-9999-4999-8999-999999999999", "theirs")
        world.machines.hypervisor(world.host.agent).remove(str(instance.pk))
        stranger.add_foreign(str(instance.pk), "in our name")  # somebody defined one with our uuid
        world.tell_inventory()
        assert world.fresh(instance).state == "stopped"
        assert [state for _name, state in world.on_machines()["domains"]["host-1"]] == ["running", "running"]

    def test_hosts_speak_of_their_own_only(self, two_hosts: World) -> None:
        instance = two_hosts.create()
        elsewhere = next(host for host in two_hosts.hosts if host != instance.host)
        two_hosts.tell_inventory(host=elsewhere)
        assert two_hosts.fresh(instance).state == "running"

    def test_few_queries_where_nothing_changed(self, world: World, django_assert_max_num_queries: Any) -> None:
        for number in range(4):
            world.create(f"vm-{number}")
        Instance.objects.update(settled_at="2001-01-01T00:00:00Z")
        report = reality.DomainInventory(world.machines.hypervisor(world.host.agent).inventory())
        with django_assert_max_num_queries(4):
            reality.inventory(world.host.agent, report)


class TestSilence:
    def test_away_and_back(self, world: World) -> None:
        running, stopped = world.create("one"), world.stopped("two")
        before = world.ledger()
        agent_disconnected.send(None, agent=world.host.agent)
        assert (world.fresh(running).state, world.fresh(stopped).state) == ("unknown", "stopped")
        assert world.fresh(running).state_reason
        world.expect_sums()
        reality.host_back(world.host.agent)
        assert world.ledger() == before
        assert world.fresh(running).state_reason == ""

    def test_what_happened_meanwhile_is_learnt(self, world: World) -> None:
        instance = world.create()
        reality.host_silent(world.host.agent)
        world.machines.hypervisor(world.host.agent).crash(str(instance.pk))
        reality.host_back(world.host.agent)
        world.settle()
        assert world.fresh(instance).state == "stopped"
        world.expect_sums()

    def test_only_the_silent_hosts_instances(self, two_hosts: World) -> None:
        made, _parent = two_hosts.begin(count=2)
        two_hosts.settle()
        reality.host_silent(made[0].host.agent)
        states = {instance.name: two_hosts.fresh(instance).state for instance in made}
        assert sorted(states.values()) == ["running", "unknown"]

    def test_the_signal_asks_a_worker(self, still: World, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[dict[str, Any]] = []
        monkeypatch.setattr(tasks.host_back, "delay", lambda **kwargs: asked.append(kwargs))
        agent_connected.send(None, agent=still.host.agent, rebooted=True)
        assert asked == [{"agent": str(still.host.agent_id)}]

    def test_a_host_that_is_away_again_is_asked_later(self, still: World) -> None:
        still.machines.away.add(str(still.host.agent_id))
        with pytest.raises(Unavailable):  # Celery tries the task again
            reality.host_back(still.host.agent)


class TestRestartedHosts:
    def test_what_ran_is_brought_back(self, world: World) -> None:
        ran, stopped = world.create("ran"), world.stopped("stopped")
        shut_down = world.create("shut-down")
        world.machines.hypervisor(world.host.agent).stop(str(shut_down.pk))
        world.tell_event(shut_down, "stopped", "shutdown")
        reboot_host(world)
        assert [world.fresh(each).state for each in (ran, stopped, shut_down)] == ["running", "stopped", "stopped"]
        assert Job.objects.filter(workflow="instance.start").get().resource_uuid == ran.pk
        world.expect_sums()

    def test_what_its_machine_took_down_in_good_order(self, world: World) -> None:
        """The machine's own shutdown ends guests as their users would: the agent tells the one from the other."""
        instance = world.create()
        event = DomainEvent(str(instance.pk), instance.name, "stopped", "shutdown")
        machine = world.machines.of(world.host.agent)
        world.machines.hypervisor(world.host.agent).stop(str(instance.pk))
        machine.link.published.clear()
        hypervisor.tell_event(machine, event, lambda: True)
        for topic, body in list(machine.link.published):
            observations.dispatch(Observation(str(world.host.agent_id), topic, body, 0.0).to_document())
        machine.link.published.clear()
        assert (world.fresh(instance).state, world.fresh(instance).is_wanted_running) == ("stopped", True)
        reboot_host(world)
        assert world.fresh(instance).state == "running"
        world.expect_sums()

    def test_also_what_was_settled_a_moment_ago(self, world: World) -> None:
        instance = world.create()
        reality.host_silent(world.host.agent)
        reboot_host(world)
        assert world.fresh(instance).state == "running"

    def test_not_where_the_cluster_does_not_want_it(self, world: World) -> None:
        instance = world.create()
        setting = {"scope_type": "cluster", "scope_uuid": world.cluster.pk}
        config.change("instance.resume_after_host_restart", value=False, actor=world.admin, **setting)
        reboot_host(world)
        assert world.fresh(instance).state == "stopped"

    def test_what_finds_no_room_says_so_and_does_not_stop_the_others(self, world: World) -> None:
        large, small = world.create("large", memory_bytes=4 * GIB), world.create("small")
        hypervisor = world.machines.hypervisor(world.host.agent)
        for instance in (large, small):
            hypervisor.crash(str(instance.pk))
        world.tell_inventory()
        assert capacity.take(world.host, cpu=0, memory_bytes=6 * GIB)
        new_boot(world)
        world.settle()
        assert (world.fresh(large).state, world.fresh(small).state) == ("stopped", "running")
        assert "host-1" in world.fresh(large).state_reason

    def test_one_in_the_bin_stays_there(self, world: World) -> None:
        instance = world.destroyed()
        reboot_host(world)
        assert world.fresh(instance).state == "destroyed"

    def test_one_start_a_boot(self, world: World) -> None:
        """What fails to start is its user's to look at; it is not tried again and again."""
        instance = world.create()
        obey = world.machines.obey
        world.machines.obey = lambda command, agent: (  # type: ignore[method-assign]
            Failure("rejected", "no_disk", "gone") if command.direction == "run" else obey(command, agent)
        )
        reboot_host(world)
        reality.bring_back_all()
        world.settle()
        assert Job.objects.filter(workflow="instance.start").count() == 1
        world.machines.obey = obey  # type: ignore[method-assign]
        reboot_host(world)
        assert world.fresh(instance).state == "running"

    def test_what_found_no_room_is_tried_again_when_there_is_some(self, world: World) -> None:
        instance = world.create()
        world.machines.hypervisor(world.host.agent).crash(str(instance.pk))
        world.tell_inventory()
        assert capacity.take(world.host, cpu=0, memory_bytes=8 * GIB)
        new_boot(world)
        reality.bring_back_all()
        assert world.fresh(instance).state == "stopped"
        capacity.give_back(world.host, cpu=0, memory_bytes=8 * GIB)
        reality.bring_back_all()
        world.settle()
        assert (world.fresh(instance).state, world.fresh(instance).state_reason) == ("running", "")

    def test_not_while_its_host_is_away(self, world: World) -> None:
        instance = world.create()
        world.machines.hypervisor(world.host.agent).crash(str(instance.pk))
        world.tell_inventory()
        Agent.objects.update(boot_id="another")
        Host.objects.update(connection="disconnected")
        reality.bring_back_all()
        assert world.fresh(instance).activity == ""

    def test_what_died_without_a_restart_stays_dead(self, world: World) -> None:
        instance = world.create()
        crash(world, instance)
        reality.host_back(world.host.agent)
        reality.bring_back_all()
        assert (world.fresh(instance).state, world.fresh(instance).activity) == ("stopped", "")

    def test_image_servers_run_nothing(self, still: World, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(tasks.host_back, "delay", lambda **kwargs: asked.append(kwargs))
        agent_connected.send(None, agent=still.server.agent, rebooted=True)
        assert asked == []
