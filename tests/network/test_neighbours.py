"""Several L3 networks on one wire: no address is two machines'."""

from typing import Any

import pytest
from django.utils.functional import Promise

from cloud.common.errors import Conflict
from network.models import IpRange, L2Network, L3Network
from network.services import addresses, nics, ranges
from tests.base.clients import member_client
from tests.network.factories import ACTOR, l3, nic, no_vlan

pytestmark = pytest.mark.django_db


@pytest.fixture
def wire() -> L2Network:
    return no_vlan()


def on(wire: L2Network, first: int, last: int, gateway: int | None) -> L3Network:
    """A network with a range of 192.168.50.0/24."""
    start, end = f"192.168.50.{first}", f"192.168.50.{last}"
    given: dict[str, Any] = {"gateway": f"192.168.50.{gateway}" if gateway else ""}
    return l3(wire, cidr="", ranges=[{"start": start, "end": end, "prefix": 24, **given}])


def refused(wire: L2Network, first: int, last: int, gateway: int | None) -> str:
    count = IpRange.objects.count()
    with pytest.raises(Conflict) as caught:
        on(wire, first, last, gateway)
    assert IpRange.objects.count() == count
    assert caught.value.code == "address_in_use"
    (field,) = caught.value.errors
    return str(field)


def test_a_range_around_anothers_gateway(wire: L2Network) -> None:
    on(wire, 100, 150, 1)
    assert refused(wire, 1, 50, 2) == "start"
    assert refused(wire, 1, 50, None) == "start"
    on(no_vlan(wire.zone, physical_interface="eth7"), 1, 50, 2)  # another wire


def test_a_range_around_anothers_reserved_address(wire: L2Network) -> None:
    addresses.reserve(on(wire, 100, 150, 1), start="192.168.50.20", actor=ACTOR)
    assert refused(wire, 10, 50, 1) == "start"
    on(wire, 21, 50, 1)


def test_a_gateway_that_another_network_may_give_out(wire: L2Network) -> None:
    other = on(wire, 100, 150, 1)
    assert refused(wire, 10, 50, 110) == "gateway"
    assert refused(wire, 10, 50, 100) == "gateway"  # its DHCP server's
    addresses.reserve(other, start="192.168.50.110", actor=ACTOR)
    on(wire, 10, 50, 110)


def test_one_router_may_serve_both(wire: L2Network) -> None:
    on(wire, 1, 50, 1)
    on(wire, 100, 150, 1)
    on(wire, 200, 250, 254)


def test_reserving_what_another_network_gives_out(wire: L2Network) -> None:
    one, _other = on(wire, 10, 50, 1), on(wire, 100, 150, 1)
    with pytest.raises(Conflict) as caught:
        addresses.reserve(one, start="192.168.50.98", end="192.168.50.120", actor=ACTOR)
    assert caught.value.code == "address_in_use"
    addresses.reserve(one, start="192.168.50.51", end="192.168.50.99", actor=ACTOR)


def test_who_has_an_address_is_told_to_those_who_see_it() -> None:
    member = member_client()
    network = l3(project=member.project)
    theirs = nic(network, instance_name="payroll")
    theirs_row = addresses.IpAddress.objects.get(holder=theirs.pk)
    stranger = no_vlan().project
    addresses.IpAddress.objects.filter(pk=theirs_row.pk).update(project=stranger)
    for actor, uuid, name in ((member.actor, None, ""), (ACTOR, theirs.instance_uuid, "payroll")):
        with pytest.raises(Conflict) as caught:
            nic(network, ip=theirs.address, actor=actor)
        assert caught.value.extra["used_by"] == {"purpose": "nic", "uuid": uuid, "name": name}


def test_no_mac_is_said_in_every_language(monkeypatch: pytest.MonkeyPatch) -> None:
    network = l3()
    monkeypatch.setattr(nics, "_random_mac", lambda: "fa:00:00:00:00:01")
    nic(network)
    with pytest.raises(Conflict) as caught:
        nic(network)
    assert isinstance(caught.value.detail, Promise)


def test_a_range_beside_its_own_addresses(wire: L2Network) -> None:
    """What a network has itself is no hindrance: it is never given out twice."""
    own = on(wire, 10, 50, 1)
    addresses.reserve(own, start="192.168.50.60", actor=ACTOR)
    ranges.add(actor=ACTOR, l3=own, start="192.168.50.51", end="192.168.50.99", prefix=24)
