"""What every network driver does, on the fake and on the kernel."""

import uuid
from dataclasses import replace

import pytest

from cloud.common.driver import DriverError, NotFound
from network.messages import (
    BridgeSpec,
    DhcpDesired,
    DhcpHost,
    DhcpNetwork,
    NetworksDesired,
    bridge_name,
    dhcp_port_name,
    namespace_name,
)
from tests.network.drivers.world import Driven, FakeHost

L2, OTHER_L2, L3 = (str(uuid.UUID(int=number << 100)) for number in (1, 2, 3))
VXLAN = BridgeSpec(L2, 1450, "vxlan", vni=100, local="10.99.1.11", peers=["10.99.1.12"])
PROVIDER = BridgeSpec(OTHER_L2, 1500, "physical", interface="eth2")
HOST = DhcpHost(str(uuid.UUID(int=7)), "fa:00:00:00:00:07", "192.168.50.7", "seven")
SERVER = DhcpNetwork(L3, L2, "192.168.50.2", 24, 1450, gateway="192.168.50.1", hosts=[HOST])


def test_twice_is_once(host: Driven) -> None:
    for act, wanted in ((host.networks, NetworksDesired([VXLAN, PROVIDER])), (host.dhcp, DhcpDesired([SERVER]))):
        assert act(wanted)  # type: ignore[arg-type]
        assert act(wanted) == []  # type: ignore[arg-type]


def test_nothing_is_left_behind(host: Driven) -> None:
    before = host.owned()
    host.networks(NetworksDesired([VXLAN, PROVIDER]))
    host.dhcp(DhcpDesired([SERVER]))
    assert host.owned() > before
    host.dhcp(DhcpDesired())
    host.networks(NetworksDesired())
    assert host.owned() == before
    assert host.dhcp(DhcpDesired()) == []
    assert host.networks(NetworksDesired()) == []


def test_what_is_not_wanted_any_more_goes_alone(host: Driven) -> None:
    host.networks(NetworksDesired([PROVIDER]))
    alone = host.owned()
    host.networks(NetworksDesired([VXLAN, PROVIDER]))
    host.networks(NetworksDesired([PROVIDER]))
    assert host.owned() == alone


def test_drift_is_mended(host: Driven) -> None:
    networks, servers = NetworksDesired([VXLAN]), DhcpDesired([SERVER])
    host.networks(networks)
    host.dhcp(servers)
    whole = host.owned()
    host.lose_bridge(L2)
    assert host.networks(networks)
    assert host.networks(networks) == []
    host.dhcp(servers)
    assert host.owned() == whole


def test_changes_are_made(host: Driven) -> None:
    host.networks(NetworksDesired([VXLAN]))
    host.dhcp(DhcpDesired([SERVER]))
    more = replace(SERVER, hosts=[HOST, replace(HOST, mac="fa:00:00:00:00:08", ip="192.168.50.8", hostname="eight")])
    for wanted in (more, SERVER, replace(SERVER, dns=["192.168.50.53"])):
        assert host.dhcp(DhcpDesired([wanted]))
        assert host.dhcp(DhcpDesired([wanted])) == []
    assert host.networks(NetworksDesired([replace(VXLAN, peers=["10.99.1.12", "10.99.1.13"])]))


def test_one_failure_does_not_stop_the_others(host: Driven) -> None:
    broken = BridgeSpec(OTHER_L2, 1500, "physical", interface="eth9")
    if isinstance(host, FakeHost):
        host.driver.failing[OTHER_L2] = NotFound("interface_missing", "no eth9")
    with pytest.raises(DriverError) as caught:
        host.networks(NetworksDesired([broken, VXLAN]))
    assert caught.value.code == "interface_missing"
    assert "eth9" in caught.value.detail
    assert host.probe(L2, "192.168.50.200") == []  # it is there


def test_probe_of_an_absent_network(host: Driven) -> None:
    with pytest.raises(NotFound) as caught:
        host.probe(L2, "192.168.50.7")
    assert caught.value.code == "network_not_here"


STRAYS = {
    "tun": "mt-0123456789a",
    "bridge": "mb-0123456789a",
    "vxlan": "vx-4711",
    "veth": "dh-0123456789ab",
    "namespace": "l3-0123456789ab",
}


def test_what_there_is_is_seen(host: Driven) -> None:
    host.networks(NetworksDesired([VXLAN, PROVIDER]))
    host.dhcp(DhcpDesired([SERVER]))
    seen = host.seen()
    assert {(each.name, each.type, each.is_used) for each in seen.devices} == {
        (bridge_name(L2), "bridge", False),
        (bridge_name(OTHER_L2), "bridge", False),
        ("vx-100", "vxlan", False),
        (dhcp_port_name(L3), "veth", False),
        (namespace_name(L3), "namespace", False),
    }
    (server,) = seen.servers
    assert (server.l3, server.is_running) == (L3, True)
    assert [(each.mac, each.ip) for each in server.hosts] == [(HOST.mac, HOST.ip)]


@pytest.mark.parametrize("sort", STRAYS)
def test_a_stray_is_seen_and_removed(host: Driven, sort: str) -> None:
    host.networks(NetworksDesired([VXLAN]))
    whole = host.seen()
    name = STRAYS[sort]
    host.add_stray(name, sort)
    assert [(each.name, each.type) for each in host.seen().devices if each not in whole.devices] == [(name, sort)]
    for _time in range(2):
        host.remove(name)
    assert host.seen() == whole


def test_a_bridge_that_is_removed_by_mistake_is_made_again(host: Driven) -> None:
    host.networks(NetworksDesired([VXLAN]))
    whole = host.seen()
    host.remove(bridge_name(L2))
    assert host.seen() != whole
    host.networks(NetworksDesired([VXLAN]))
    assert sorted(each.name for each in host.seen().devices) == sorted(each.name for each in whole.devices)


@pytest.mark.parametrize("name", ["eth1", "lo", "br0", "../etc"])
def test_what_is_not_ours_is_never_removed(host: Driven, name: str) -> None:
    with pytest.raises(DriverError) as caught:
        host.remove(name)
    assert caught.value.code == "not_ours"
