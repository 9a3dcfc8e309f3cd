"""Tickets to consoles and into instances' networks: each opens once, for a short time."""

import uuid
from typing import Any

import pytest

from cloud.accounts.services import actors
from cloud.common.errors import Conflict, Invalid, Missing, NotPermitted
from cloud.config import services as config
from cloud.events.models import AuditRecord
from cloud.jobs.agents import redis
from compute.models import Instance, InstanceState
from compute.services import doors
from network.models import Nic
from tests.compute.world import World
from tests.factories.accounts import member
from tests.factories.compute import InstanceFactory
from tests.network import factories as networks

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(admin_user: Any) -> Instance:
    return InstanceFactory.running()


@pytest.fixture
def admin_actor(admin_user: Any) -> Any:
    return actors.of(admin_user)


@pytest.mark.parametrize(("kind", "verb"), [("vnc", "compute.vnc"), ("serial", "compute.serial")])
def test_a_console_opens_once(running: Instance, admin_actor: Any, kind: str, verb: str) -> None:
    ticket = doors.console(running, actor=admin_actor, kind=kind)
    assert (ticket.path, ticket.ttl_s) == (f"/ws/stream/{ticket.ticket}/", 60)
    door = doors.redeem(ticket.ticket)
    assert (door.agent, door.verb, door.resource) == (str(running.host.agent_id), verb, str(running.pk))
    with pytest.raises(Missing) as caught:
        doors.redeem(ticket.ticket)
    assert caught.value.code == "ticket_spent"
    assert AuditRecord.objects.get(action="instance.console").resource_uuid == running.pk


def test_it_lives_as_long_as_the_setting_says(running: Instance, admin_actor: Any) -> None:
    config.change("console.ticket_ttl_s", value=5, actor=admin_actor)
    ticket = doors.console(running, actor=admin_actor)
    assert 0 < redis().ttl(f"mica:door:{ticket.ticket}") <= ticket.ttl_s == 5
    redis().expire(f"mica:door:{ticket.ticket}", 0)
    with pytest.raises(Missing):
        doors.redeem(ticket.ticket)


def test_what_never_was_opens_nothing() -> None:
    with pytest.raises(Missing):
        doors.redeem(str(uuid.uuid4()))


def test_tickets_are_not_alike(running: Instance, admin_actor: Any) -> None:
    words = {doors.console(running, actor=admin_actor).ticket for _ in range(5)}
    assert len(words) == 5
    assert min(map(len, words)) >= 32


@pytest.mark.parametrize(
    "state", [state for state in InstanceState if state not in (InstanceState.RUNNING, InstanceState.PAUSED)]
)
def test_only_into_what_runs(admin_actor: Any, state: InstanceState) -> None:
    instance = InstanceFactory.running(state=state)
    networks.nic(instance_uuid=instance.pk)
    for door in (lambda: doors.console(instance, actor=admin_actor), lambda: _tunnel(instance, admin_actor)):
        with pytest.raises(Conflict) as caught:
            door()
        assert (caught.value.code, bool(caught.value.advice)) == ("wrong_state", True)
    assert not AuditRecord.objects.filter(resource_uuid=instance.pk).exists()


def _tunnel(instance: Instance, actor: Any, **params: Any) -> doors.Ticket:
    return doors.tunnel(instance, actor=actor, port=22, **params)


def test_a_tunnel_leads_to_the_first_nic_or_the_chosen_one(running: Instance, admin_actor: Any) -> None:
    first, second = (
        networks.nic(networks.l3(cidr=f"10.{index}.0.0/24"), instance_uuid=running.pk, device_index=index)
        for index in range(2)
    )
    stranger = networks.nic()
    for asked, found in ((None, first), (second.address, second)):
        door = doors.redeem(_tunnel(running, admin_actor, ip=asked).ticket)
        assert (door.verb, door.params) == ("network.tcp", {"l3": str(found.l3_id), "ip": found.address, "port": 22})
    for wrong in (stranger.address, "203.0.113.9", "::1"):
        with pytest.raises(Invalid) as caught:
            _tunnel(running, admin_actor, ip=wrong)
        assert caught.value.errors["ip"]
    Nic.objects.filter(instance_uuid=running.pk).delete()
    with pytest.raises(Invalid):
        _tunnel(running, admin_actor)


def test_rights(running: Instance) -> None:
    onlooker, stranger = actors.of(member("monitor_only", project=running.project)), actors.of(member())
    for door in (doors.console, _tunnel):
        with pytest.raises(NotPermitted):
            door(running, actor=onlooker)
        with pytest.raises(Missing):
            door(running, actor=stranger)


def test_the_whole_way(world: World) -> None:
    instance = world.create()
    door = doors.redeem(doors.tunnel(instance, actor=world.admin, port=80).ticket)
    assert door.params["ip"] == "192.168.50.3"
    assert door.agent == str(world.host.agent_id)
