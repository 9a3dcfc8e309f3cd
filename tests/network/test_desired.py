"""What hosts are told: bridges, tunnel peers, DHCP servers; who can carry what; and who answers for an address."""

import uuid
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cloud.common import relations
from cloud.common.errors import Invalid, Missing, Unavailable
from cloud.infra.models import DesiredSection, Host
from cloud.infra.signals import agent_connected
from network.messages import DhcpDesired, NetworksDesired, bridge_name
from network.models import IpAddress, Nic, Vtep
from network.services import addresses, check, desired, l2, nics, placement
from tests.base.clients import member_client
from tests.network import factories as make
from tests.network.factories import ACTOR
from tests.network.test_l2 import numbers

pytestmark = pytest.mark.django_db


def bridges(host: Host) -> dict[str, Any]:
    """What the host is told of its networks, by name of the bridge."""
    assert host.agent is not None
    wanted = NetworksDesired.from_document(desired.networks(host.agent))
    return {spec.name: spec for spec in wanted.bridges}


def servers(host: Host) -> dict[str, Any]:
    assert host.agent is not None
    return {each.l3: each for each in DhcpDesired.from_document(desired.dhcp(host.agent)).networks}


def test_bridges_of_each_kind() -> None:
    cluster = make.cluster()
    host = make.host(cluster, "10.99.1.11")
    plain = make.no_vlan(cluster.zone, clusters=[cluster])
    tagged = make.no_vlan(cluster.zone, kind="vlan", vlan_id=7, clusters=[cluster])
    tunnelled = make.vxlan(make.pool(cluster.zone, clusters=[cluster]))
    make.no_vlan(cluster.zone, physical_interface="eth5")  # attached to nothing
    found = bridges(host)
    assert set(found) == {bridge_name(str(row.pk)) for row in (plain, tagged, tunnelled)}
    specs = {spec.uplink: spec for spec in found.values()}
    assert (specs["physical"].interface, specs["physical"].mtu) == ("eth2", 1500)
    assert (specs["vlan"].interface, specs["vlan"].vlan_id) == ("eth2", 7)
    assert (specs["vxlan"].vni, specs["vxlan"].mtu, specs["vxlan"].local) == (1000, 1450, "10.99.1.11")


def test_peers_are_the_others_of_all_clusters_whether_they_answer_or_not() -> None:
    one = make.cluster()
    other = make.cluster(zone=one.zone)
    a = make.host(one, "10.99.1.11")
    make.host(one, "10.99.1.12", connection="disconnected")
    b = make.host(other, "10.99.1.13")
    bare = make.host(one)
    network = make.vxlan(make.pool(one.zone), clusters=[one])
    name = bridge_name(str(network.pk))
    assert bridges(a)[name].peers == ["10.99.1.12"]
    assert bridges(bare) == bridges(b) == {}
    l2.attach(network, cluster=other, actor=ACTOR)
    assert bridges(a)[name].peers == ["10.99.1.12", "10.99.1.13"]
    assert bridges(b)[name].peers == ["10.99.1.11", "10.99.1.12"]
    l2.detach(network, cluster=one, actor=ACTOR)
    assert bridges(b)[name].peers == []


def test_moved_endpoint_is_told_to_the_peers() -> None:
    cluster = make.cluster()
    a, b = make.host(cluster, "10.99.1.11", name="a"), make.host(cluster, "10.99.1.12", name="b")
    network = make.vxlan(make.pool(cluster.zone), clusters=[cluster])
    told = numbers()
    assert b.agent is not None
    b.agent.facts = {"nics": make.cards("10.99.1.99")}
    b.agent.save()
    agent_connected.send(None, agent=b.agent, rebooted=False)
    assert numbers()["a"] == told["a"] + 1
    assert bridges(a)[bridge_name(str(network.pk))].peers == ["10.99.1.99"]
    told = numbers()
    agent_connected.send(None, agent=b.agent, rebooted=True)
    assert numbers()["a"] == told["a"]  # nothing moved
    # Facts without the address: guests there still talk over the endpoint that was known last.
    b.agent.facts = {"nics": []}
    b.agent.save()
    agent_connected.send(None, agent=b.agent, rebooted=False)
    assert Vtep.objects.get(host=b).address == "10.99.1.99"


def test_new_host_learns_its_networks_and_its_peers_learn_of_it() -> None:
    cluster = make.cluster()
    a = make.host(cluster, "10.99.1.11", name="a")
    network = make.vxlan(make.pool(cluster.zone), clusters=[cluster])
    new = make.host(cluster, "10.99.1.12", name="new")
    agent_connected.send(None, agent=new.agent, rebooted=False)
    name = bridge_name(str(network.pk))
    assert bridges(new)[name].peers == ["10.99.1.11"]
    assert bridges(a)[name].peers == ["10.99.1.12"]
    assert numbers()["new"] >= 1
    told = numbers()["a"]
    new.delete()
    assert numbers()["a"] == told + 1
    assert bridges(a)[name].peers == []


def test_a_new_host_and_its_peers_are_told_at_once() -> None:
    """Rows taken in one order, those that are there before the new ones: hosts of one pool that speak at the same time
    never wait for each other in a ring."""
    cluster = make.cluster()
    make.host(cluster, "10.99.1.11")
    make.vxlan(make.pool(cluster.zone), clusters=[cluster])
    new = make.host(cluster, "10.99.1.12")
    assert new.agent is not None
    with CaptureQueriesContext(connection) as queries:
        desired.host_spoke(new.agent)
    taken = [each["sql"] for each in queries if "FOR NO KEY UPDATE OF row" in each["sql"]]
    assert len(taken) == 2
    assert set(DesiredSection.objects.values_list("agent", "section")) >= {
        (new.agent.pk, "networks"),
        (new.agent.pk, "dhcp"),
    }


def test_dhcp_servers_know_the_nics_placed_there() -> None:
    cluster = make.cluster()
    one, two = make.host(cluster), make.host(cluster)
    network = make.no_vlan(cluster.zone, clusters=[cluster])
    made = make.l3(
        network,
        domain="zone.test",
        dns=["10.0.0.53"],
        mtu=1400,
        routes=[{"destination": "10.1.0.0/16", "via": "192.168.50.9"}],
    )
    first, second = make.nic(made, instance_name="Ein Name"), make.nic(made, instance_name="云主机")
    assert servers(one) == {}
    wants = nics.place([first], one)
    nics.place([second], two)
    assert [(agent, section) for agent, section, _ in wants] == [
        (str(one.agent_id), "dhcp"),
        (str(one.agent_id), "networks"),
    ]
    server = servers(one)[str(made.pk)]
    assert (server.address, server.prefix, server.gateway) == ("192.168.50.2", 24, "192.168.50.1")
    assert (server.dns, server.domain, server.mtu, server.lease_s) == (["10.0.0.53"], "zone.test", 1400, 86400)
    assert (server.routes[0].destination, server.l2) == ("10.1.0.0/16", str(network.pk))
    assert [(host.mac, host.ip, host.hostname) for host in server.hosts] == [(first.mac, first.address, "ein-name")]
    assert servers(two)[str(made.pk)].hosts[0].hostname == f"vm-{second.instance_uuid.hex[:8]}"
    nics.place([first], two)
    assert servers(one) == {}
    assert len(servers(two)[str(made.pk)].hosts) == 2
    nics.unplace([first])
    wants = nics.delete([second])
    assert [(agent, section) for agent, section, _ in wants] == [(str(two.agent_id), "dhcp")]
    assert servers(two) == {}


def test_wants_cover_both_sections() -> None:
    cluster = make.cluster()
    host = make.host(cluster)
    made = make.l3(make.no_vlan(cluster.zone))
    nic = make.nic(made)
    nics.place([nic], host)
    assert {section for _, section, _ in nics.wants([nic])} == {"networks", "dhcp"}
    assert nics.wants([nic]) == nics.wants([nic])  # asking changes nothing
    nics.unplace([nic])
    assert nics.wants([nic]) == []


def test_attachment_says_all_that_a_domain_needs() -> None:
    made = make.l3(make.vxlan(), dns=["10.0.0.53"])
    nic = make.nic(made, instance_name="web-1")
    found = nics.attachment(nic)
    assert (found.uuid, found.mac, found.address, found.l3) == (str(nic.pk), nic.mac, nic.address, str(made.pk))
    assert (found.bridge, found.mtu, found.prefix) == (bridge_name(str(made.l2_id)), 1450, 24)
    assert (found.gateway, found.dns, found.hostname) == ("192.168.50.1", ["10.0.0.53"], "web-1")


def test_reasons_against_hosts() -> None:
    cluster = make.cluster()
    plain = make.l3(make.no_vlan(cluster.zone, clusters=[cluster]))
    tunnelled = make.l3(make.vxlan(make.pool(cluster.zone), clusters=[cluster]))
    jumbo = make.l3(make.no_vlan(cluster.zone, physical_interface="eth1", mtu=9000, clusters=[cluster]))
    wide = make.l3(make.vxlan(make.pool(cluster.zone, start=1, end=9, mtu=9000), clusters=[cluster]))
    elsewhere = make.l3(make.no_vlan(cluster.zone))
    good = make.host(cluster, "10.99.1.11")
    busy = make.host(cluster, facts={"nics": [{"name": "eth2", "mac": "", "mtu": 1500, "addresses": ["10.0.0.1/8"]}]})
    for host in (good, busy):
        agent_connected.send(None, agent=host.agent, rebooted=False)
    assert placement.reason_against(good, [plain, tunnelled]) is None
    for host, l3, word in (
        (good, elsewhere, "not attached"),
        (good, jumbo, "MTU"),
        (good, wide, "MTU"),
        (busy, plain, "addresses of its own"),
        (busy, tunnelled, "VTEP network"),
        (make.host(cluster, facts={"nics": make.cards(provider=False)}), plain, "no network card eth2"),
        (make.host(cluster, facts={}), plain, "not yet said"),
        (make.host(cluster, agent=None), plain, "not yet said"),
    ):
        assert word in (placement.reason_against(host, [l3]) or ""), word
    # What a host cannot carry it is not told to: one network does not stop its others.
    assert bridge_name(str(jumbo.l2_id)) not in bridges(good)
    assert bridge_name(str(plain.l2_id)) in bridges(good)


def test_many_hosts_cost_no_more_queries(django_assert_num_queries: Any) -> None:
    cluster = make.cluster()
    l3s = [make.l3(make.vxlan(make.pool(cluster.zone, start=n, end=n), clusters=[cluster])) for n in (1, 2)]
    for number in range(4):
        make.host(cluster, f"10.99.1.{number + 1}")
    hosts = list(Host.objects.select_related("agent", "cluster"))
    with django_assert_num_queries(3):
        reason = placement.reasons_against(l3s)
        assert len([reason(host) for host in hosts]) == 4


def test_nic_needs_a_network_one_sees() -> None:
    with pytest.raises(Missing):
        make.nic(make.l3(), actor=member_client().actor)
    assert not Nic.objects.exists()
    assert not IpAddress.objects.filter(purpose="nic").exists()


def test_infrastructure_in_use_is_named() -> None:
    cluster = make.cluster()
    host = make.host(cluster)
    network = make.no_vlan(cluster.zone, clusters=[cluster])
    nics.place([make.nic(make.l3(network))], host)
    assert relations.blocking([cluster.zone])[cluster.zone.pk]["l2_network"] == 1
    assert relations.blocking([host])[host.pk]["nic"] == 1


def test_check_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make.cluster()
    make.host(cluster)
    made = make.l3(make.no_vlan(cluster.zone, clusters=[cluster]))
    nic = make.nic(made, instance_name="web")
    addresses.reserve(made, start="192.168.50.9", note="printer", actor=ACTOR)
    claimed: dict[str, list[str]] = {nic.address: [nic.mac], "192.168.50.66": ["02:00:00:00:00:66"]}
    monkeypatch.setattr(check.agents, "ask", lambda _agent, question, _timeout: {"macs": claimed.get(question.ip, [])})

    def look(ip: str) -> Any:
        return check.address(made, ip, actor=ACTOR)

    free = look("192.168.50.77")
    assert (free.is_available, free.is_in_range, free.used_by, free.is_answering) == (True, True, None, False)
    assert free.next_free == "192.168.50.4"
    used = look(nic.address)
    assert (used.is_available, used.is_answering) == (False, True)
    assert used.used_by == {"purpose": "nic", "uuid": nic.instance_uuid, "name": "web"}
    assert look("192.168.50.1").used_by["purpose"] == "gateway"
    assert look("192.168.50.2").used_by["purpose"] == "dhcp"
    assert (look("192.168.50.9").is_reserved, look("192.168.50.9").is_available) == (True, False)
    assert look("10.0.0.1").is_in_range is False
    foreign = look("192.168.50.66")
    assert (foreign.is_available, foreign.used_by, foreign.macs) == (False, None, ["02:00:00:00:00:66"])
    with pytest.raises(Invalid):
        look("nonsense")


def test_check_without_anybody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make.cluster()
    made = make.l3(make.no_vlan(cluster.zone, clusters=[cluster]))
    assert check.address(made, "192.168.50.7", actor=ACTOR).is_answering is None
    make.host(cluster)

    def silent(*_given: Any) -> Any:
        raise Unavailable

    monkeypatch.setattr(check.agents, "ask", silent)
    found = check.address(made, "192.168.50.7", actor=ACTOR)
    assert (found.is_answering, found.is_available) == (None, True)


def test_image_servers_have_no_networks() -> None:
    from cloud.infra.models import Agent

    machine = Agent.objects.create(
        uuid=uuid.uuid4(), name="s", kind="image_server", address="s", project=make.zone().project
    )
    assert desired.networks(machine) == {"bridges": []}
    assert desired.dhcp(machine) == {"networks": []}
