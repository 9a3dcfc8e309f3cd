"""L3 networks and their ranges."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.common.errors import Conflict, Invalid
from network.models import AddressPurpose, IpAddress, IpRange, L3Network
from network.services import addresses, ipv4, l2, l3, nics, ranges
from network.services.names import hostname
from tests.network import factories as make
from tests.network.factories import ACTOR
from tests.network.test_l2 import numbers


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"domain": "no domain"}, "domain"),
        ({"domain": "a" * 64 + ".org"}, "domain"),
        ({"domain": "x.org\nuser=root"}, "domain"),
        ({"dns": ["8.8.8.8,x"]}, "dns"),
        ({"dns": [f"10.0.0.{n}" for n in range(5)]}, "dns"),
        ({"routes": [{"destination": "10.0.0.1/24", "via": "10.0.0.1"}]}, "routes"),
        ({"mtu": 1501}, "mtu"),
        ({"ranges": [{"cidr": "10.0.0.0/31"}]}, "cidr"),
        ({"ranges": [{"start": "10.0.0.5", "end": "10.0.0.9"}]}, "prefix"),
        ({"ranges": [{"start": "10.0.0.5", "end": "10.0.0.9", "netmask": "255.0.255.0"}]}, "netmask"),
        ({"ranges": [{"start": "10.0.0.5", "end": "10.0.1.9", "prefix": 24}]}, "end"),
        ({"ranges": [{"start": "10.0.0.9", "end": "10.0.0.5", "prefix": 24}]}, "end"),
        ({"ranges": [{"start": "10.0.0.0", "end": "10.0.0.5", "prefix": 24}]}, "start"),
        ({"ranges": [{"start": "10.0.0.1", "end": "10.0.0.255", "prefix": 24}]}, "end"),
        ({"ranges": [{"cidr": "10.0.0.0/24", "gateway": "10.0.1.1"}]}, "gateway"),
        ({"ranges": [{"cidr": "127.0.0.0/24"}]}, "start"),
        ({"ranges": [{"cidr": "224.0.0.0/24"}]}, "start"),
    ],
)
def test_what_makes_no_sense_is_refused_whole(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        l3.create(actor=ACTOR, l2=make.no_vlan(), name="x", **fields)
    assert list(caught.value.errors) == [field]
    assert not L3Network.objects.exists()


@pytest.mark.django_db
def test_a_pool_is_no_network() -> None:
    with pytest.raises(Invalid):
        l3.create(actor=ACTOR, l2=make.pool(), name="x")


@pytest.mark.django_db
def test_ranges_do_not_overlap_and_share_a_subnet() -> None:
    network = make.no_vlan()
    made = make.l3(network, cidr="10.0.0.0/24", start="10.0.0.10", end="10.0.0.20", gateway="10.0.0.254")
    assert dict(made.addresses.values_list("purpose", "address")) == {"gateway": "10.0.0.254", "dhcp": "10.0.0.10"}
    for fields, code in (
        ({"start": "10.0.0.20", "end": "10.0.0.30", "prefix": 24}, "range_overlap"),
        ({"start": "10.0.0.1", "end": "10.0.0.100", "prefix": 24}, "range_overlap"),
        ({"start": "10.0.1.1", "end": "10.0.1.9", "prefix": 24}, "other_subnet"),
        ({"start": "10.0.0.30", "end": "10.0.0.40", "prefix": 25}, "other_subnet"),
        ({"start": "10.0.0.30", "end": "10.0.0.40", "prefix": 24, "gateway": "10.0.0.1"}, "other_gateway"),
    ):
        with pytest.raises((Conflict, Invalid)) as caught:
            ranges.add(actor=ACTOR, l3=made, **fields)
        assert caught.value.code == code
    ranges.add(actor=ACTOR, l3=made, start="10.0.0.21", end="10.0.0.30", netmask="255.255.255.0")
    with pytest.raises(Conflict):  # the same wire
        make.l3(network, cidr="10.0.0.0/24", start="10.0.0.25", end="10.0.0.26")
    make.l3(make.no_vlan(), cidr="10.0.0.0/24")  # another wire


@pytest.mark.django_db
def test_network_without_gateway() -> None:
    made = make.l3(gateway="")
    assert [row.purpose for row in made.addresses.all()] == [AddressPurpose.DHCP]
    assert nics.attachment(make.nic(made)).gateway == ""


@pytest.mark.django_db
def test_range_in_use_stays_and_the_dhcp_server_moves() -> None:
    cluster = make.cluster()
    host = make.host(cluster, name="h")
    made = make.l3(make.no_vlan(cluster.zone, clusters=[cluster]), start="192.168.50.10", end="192.168.50.11")
    first = made.ranges.get()
    other = ranges.add(actor=ACTOR, l3=made, start="192.168.50.20", end="192.168.50.29", prefix=24)
    nic = make.nic(made)
    with pytest.raises(Conflict) as caught:
        ranges.delete(first, actor=ACTOR)
    assert caught.value.extra["used_by"][0]["address"] == nic.address
    nics.delete([nic])
    nics.place([make.nic(made, ip="192.168.50.25")], host)
    told = numbers("dhcp")["h"]
    ranges.delete(first, actor=ACTOR)
    assert numbers("dhcp")["h"] == told + 1
    assert made.addresses.get(purpose=AddressPurpose.DHCP).address == "192.168.50.20"
    assert made.addresses.get(purpose=AddressPurpose.GATEWAY).address == "192.168.50.1"
    nics.delete(made.nics.all())
    ranges.delete(other, actor=ACTOR)
    assert not IpAddress.objects.exists()


@pytest.mark.django_db
def test_delete() -> None:
    made = make.l3()
    addresses.reserve(made, start="192.168.50.9", actor=ACTOR)
    nic = make.nic(made)
    with pytest.raises(Conflict) as caught:
        l3.delete(made, actor=ACTOR)
    assert caught.value.code == "in_use"
    nics.delete([nic])
    network = made.l2
    l3.delete(made, actor=ACTOR)
    l2.delete(network, actor=ACTOR)
    assert not IpAddress.objects.exists()
    assert not IpRange.objects.exists()


@pytest.mark.django_db
def test_update_tells_the_servers() -> None:
    cluster = make.cluster()
    host = make.host(cluster, name="h")
    made = make.l3(make.no_vlan(cluster.zone, clusters=[cluster]))
    nics.place([make.nic(made)], host)
    told = numbers("dhcp")["h"]
    l3.update(made, name="other", actor=ACTOR)
    assert numbers("dhcp")["h"] == told
    l3.update(made, dns=["10.0.0.53"], domain="Zone.Test.", mtu=1400, actor=ACTOR)
    made.refresh_from_db()
    assert (made.dns, made.domain, made.mtu) == (["10.0.0.53"], "zone.test", 1400)
    assert numbers("dhcp")["h"] == told + 1
    with pytest.raises(Invalid):
        l3.update(made, mtu=9000, actor=ACTOR)


@given(st.text(max_size=300))
def test_any_name_makes_a_label(name: str) -> None:
    import re
    import uuid

    label = hostname(name, uuid.UUID(int=5 << 96))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


@given(st.ip_addresses(v=4), st.integers(8, 30), st.integers(0, 300))
def test_any_span_holds_only_hosts_of_its_subnet(first: Any, prefix: int, count: int) -> None:
    try:
        span = ipv4.span(start=str(first), end=str(first + count), prefix=prefix)
    except (Invalid, ValueError):
        return
    assert span.size == count + 1
    for end in (span.start, span.end):
        assert end in span.subnet
        assert end not in (span.subnet.network_address, span.subnet.broadcast_address)
