"""The Linux driver with real bridges, tunnels, DHCP servers and guests, on two hosts in namespaces."""

import subprocess
import sys
import uuid
from dataclasses import replace

import pytest

from cloud.common.driver import NotFound, Rejected, Transient, Unsupported
from network.messages import (
    BridgeSpec,
    DhcpDesired,
    DhcpHost,
    DhcpNetwork,
    NetworksDesired,
    bridge_name,
    dhcp_mac,
    dhcp_port_name,
    namespace_name,
    tap_name,
)
from tests.network.drivers.world import Guest, LinuxHost, World, ip, wait_until

pytestmark = pytest.mark.lab

L2, L3 = str(uuid.uuid4()), str(uuid.uuid4())
VTEPS = ["10.99.1.11", "10.99.1.12"]


def vxlan(host: LinuxHost, world: World) -> BridgeSpec:
    local, peer = VTEPS if host is world.a else VTEPS[::-1]
    return BridgeSpec(L2, 1450, "vxlan", vni=100, local=local, peers=[peer])


def known(guest: Guest, address: str) -> DhcpHost:
    return DhcpHost(guest.uuid, guest.mac, address, f"vm-{address.rpartition('.')[2]}")


def server(*hosts: DhcpHost) -> DhcpNetwork:
    return DhcpNetwork(
        L3, L2, "192.168.50.2", 24, 1450, "192.168.50.1", ["192.168.50.53"], "zone.test", hosts=list(hosts)
    )


@pytest.fixture
def joined(world: World) -> World:
    """Both hosts have the VXLAN network."""
    for host in (world.a, world.b):
        host.networks(NetworksDesired([vxlan(host, world)]))
    return world


def test_guests_get_addresses_and_meet_over_vxlan(joined: World) -> None:
    one, two = joined.guest(joined.a, L2), joined.guest(joined.b, L2)
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"))]))
    joined.b.dhcp(DhcpDesired([server(known(two, "192.168.50.20"))]))
    lease = one.ask_dhcp()
    assert lease is not None
    assert lease["ip"] == "192.168.50.10"
    assert (lease["mask"], lease["router"], lease["dns"]) == ("24", "192.168.50.1", "192.168.50.53")
    assert (lease["mtu"], lease["domain"], lease["hostname"]) == ("1450", "zone.test", "vm-10")
    assert (lease["serverid"], lease["lease"]) == ("192.168.50.2", "86400")
    other = two.ask_dhcp()
    assert other is not None
    assert other["ip"] == "192.168.50.20"
    assert one.pings("192.168.50.20")
    assert two.pings("192.168.50.10")
    # Full-sized packets pass whole: 1450 less 28 bytes of IP and ICMP.
    assert one.run("ping", "-c", "1", "-W", "3", "-M", "do", "-s", "1422", "192.168.50.20").returncode == 0
    assert joined.a.probe(L2, "192.168.50.20") == [two.mac]
    assert joined.a.probe(L2, "192.168.50.99") == []


def test_dhcp_answers_only_its_own_host_and_known_macs(joined: World) -> None:
    near, far, stranger = joined.guest(joined.a, L2), joined.guest(joined.b, L2), joined.guest(joined.a, L2)
    joined.a.dhcp(DhcpDesired([server(known(near, "192.168.50.10"), known(far, "192.168.50.20"))]))
    assert near.ask_dhcp() is not None
    assert far.ask_dhcp(tries=2) is None  # known there, but on another host
    assert stranger.ask_dhcp(tries=2) is None
    # Both hosts have a server with the same address and MAC: neither is seen from the other side.
    joined.b.dhcp(DhcpDesired([server(known(far, "192.168.50.20"))]))
    assert far.ask_dhcp() is not None
    assert far.pings("192.168.50.2")
    assert near.pings("192.168.50.2")
    learnt = joined.a.run("bridge", "fdb", "show", "br", bridge_name(L2))
    assert [line for line in learnt.splitlines() if dhcp_mac(L3) in line and "vx-100" in line] == []


def test_hosts_come_and_go(joined: World) -> None:
    one, two = joined.guest(joined.a, L2), joined.guest(joined.a, L2)
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"))]))
    pid = joined.a.run("ip", "netns", "pids", namespace_name(L3))
    assert one.ask_dhcp() is not None
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"), known(two, "192.168.50.11"))]))
    assert joined.a.run("ip", "netns", "pids", namespace_name(L3)) == pid  # an addition restarts nothing
    assert two.ask_dhcp() is not None
    # The address of a deleted NIC goes to another one, though its lease has not run out.
    joined.a.dhcp(DhcpDesired([server(known(two, "192.168.50.10"))]))
    lease = two.ask_dhcp()
    assert lease is not None
    assert lease["ip"] == "192.168.50.10"
    assert one.ask_dhcp(tries=2) is None


def test_deleted_bridge_gets_its_guests_back(joined: World) -> None:
    one, two = joined.guest(joined.a, L2), joined.guest(joined.b, L2)
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"))]))
    joined.b.dhcp(DhcpDesired([server(known(two, "192.168.50.20"))]))
    assert one.ask_dhcp() is not None
    assert two.ask_dhcp() is not None
    joined.a.run("ip", "link", "del", bridge_name(L2))
    assert not one.pings("192.168.50.20")
    joined.a.networks(NetworksDesired([vxlan(joined.a, joined)]))
    assert one.pings("192.168.50.20")
    assert one.ask_dhcp() is not None


def test_small_drift_is_mended(joined: World) -> None:
    wanted, servers = NetworksDesired([vxlan(joined.a, joined)]), DhcpDesired([server()])
    joined.a.dhcp(servers)
    bridge, port = bridge_name(L2), dhcp_port_name(L3)
    for words in (
        ("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "vx-100", "dst", VTEPS[1]),
        ("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx-100", "dst", "10.99.1.66"),
        ("ip", "link", "set", "vx-100", "nomaster"),
        ("ip", "link", "set", "vx-100", "down"),
        ("bridge", "link", "set", "dev", "vx-100", "isolated", "off"),
        ("ip", "link", "set", bridge, "down"),
        ("ip", "link", "set", bridge, "mtu", "1400"),
        ("ip", "link", "set", bridge, "type", "bridge", "stp_state", "1", "forward_delay", "1500"),
        ("ip", "link", "del", "vx-100"),
    ):
        joined.a.run(*words)
        assert joined.a.networks(wanted), words
        assert joined.a.networks(wanted) == [], words
    namespace = namespace_name(L3)
    for words in (
        ("ip", "link", "set", port, "nomaster"),
        ("bridge", "link", "set", "dev", port, "isolated", "off"),
        ("ip", "link", "del", port),
        ("ip", "-n", namespace, "addr", "flush", "dev", "eth0"),
        ("ip", "-n", namespace, "link", "set", "eth0", "down"),
        ("ip", "netns", "del", namespace),
    ):
        joined.a.run(*words)
        assert joined.a.dhcp(servers), words
        assert joined.a.dhcp(servers) == [], words
    links = joined.a.links()
    assert links["vx-100"]["linkinfo"]["info_slave_data"]["isolated"] is True
    assert links[port]["linkinfo"]["info_slave_data"]["isolated"] is True
    assert links[bridge]["mtu"] == 1450
    assert links[bridge]["linkinfo"]["info_data"]["forward_delay"] == 0
    ours = (bridge, "vx-100", port)
    assert [links[name]["inet6_addr_gen_mode"] for name in ours] == ["none"] * 3
    assert joined.a.run("ip", "-j", "addr", "show", "dev", bridge).count('"local"') == 0


def test_killed_server_comes_back_at_once(joined: World) -> None:
    one = joined.guest(joined.a, L2)
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"))]))
    namespace = namespace_name(L3)
    first = joined.a.run("ip", "netns", "pids", namespace).split()
    joined.a.lose_server(L3)
    assert wait_until(lambda: joined.a.run("ip", "netns", "pids", namespace).split() not in ([], first))
    assert one.ask_dhcp() is not None


def test_provider_network_and_its_interface(world: World) -> None:
    spec = BridgeSpec(L2, 1500, "physical", interface="eth2")
    for host in (world.a, world.b):
        host.networks(NetworksDesired([spec]))
    one, two = world.guest(world.a, L2), world.guest(world.b, L2)
    world.a.dhcp(DhcpDesired([replace(server(known(one, "192.168.50.10")), mtu=1500)]))
    world.b.dhcp(DhcpDesired([replace(server(known(two, "192.168.50.20")), mtu=1500)]))
    assert one.ask_dhcp() is not None
    assert two.ask_dhcp() is not None
    assert one.pings("192.168.50.20")
    ip("-n", world.switch, "addr", "add", "192.168.50.1/24", "dev", "provider")
    assert one.pings("192.168.50.1")
    assert world.b.probe(L2, "192.168.50.1") != []


def test_interfaces_that_cannot_be_given(world: World) -> None:
    for spec, code in (
        (BridgeSpec(L2, 1500, "physical", interface="eth1"), "interface_in_use"),
        (BridgeSpec(L2, 1500, "physical", interface="eth9"), "interface_missing"),
        (BridgeSpec(L2, 9000, "physical", interface="eth2"), "interface_mtu_too_small"),
        (BridgeSpec(L2, 1450, "vxlan", vni=7, local="10.99.1.99"), "vtep_address_missing"),
        (BridgeSpec(L2, 1450, "geneve"), "uplink_unknown"),
    ):
        with pytest.raises((Rejected, NotFound, Unsupported)) as caught:
            world.a.networks(NetworksDesired([spec]))
        assert caught.value.code == code
    assert world.a.run("ip", "-j", "addr", "show", "dev", "eth1").count("10.99.1.11") == 1


def test_vlan_where_the_kernel_can_and_a_clear_word_where_it_cannot(world: World) -> None:
    spec = NetworksDesired([BridgeSpec(L2, 1500, "vlan", interface="eth2", vlan_id=10)])
    probe = subprocess.run(
        ["ip", "-n", world.switch, "link", "add", "link", "provider", "name", "v", "type", "vlan", "id", "9"]
    )
    if probe.returncode == 0:
        assert world.a.networks(spec)
        assert world.a.networks(spec) == []
        return
    with pytest.raises(Unsupported) as caught:
        world.a.networks(spec)
    assert caught.value.code == "vlan_unsupported"
    assert "8021q" in caught.value.detail


def test_bridge_with_guests_is_never_taken_away(joined: World) -> None:
    one, two = joined.guest(joined.a, L2), joined.guest(joined.b, L2)
    one.run("ip", "addr", "add", "192.168.50.10/24", "dev", "eth0")
    two.run("ip", "addr", "add", "192.168.50.20/24", "dev", "eth0")
    joined.a.networks(NetworksDesired())
    assert one.pings("192.168.50.20")
    ip("-n", joined.a.namespace, "link", "del", tap_name(one.uuid))
    joined.a.networks(NetworksDesired())
    assert joined.a.owned() == set()


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    ip("-n", world.a.namespace, "link", "add", "br-own", "type", "bridge")
    ip("-n", world.a.namespace, "link", "add", "vx-own", "type", "bridge")  # our prefix, but not what we make
    world.a.networks(NetworksDesired([BridgeSpec(L2, 1450, "vxlan", vni=100, local=VTEPS[0])]))
    world.a.networks(NetworksDesired())
    assert {"br-own", "vx-own", "eth1", "eth2"} <= world.a.links().keys()


def test_connection_into_the_network(joined: World) -> None:
    one = joined.guest(joined.a, L2)
    joined.a.dhcp(DhcpDesired([server(known(one, "192.168.50.10"))]))
    one.run("ip", "addr", "add", "192.168.50.10/24", "dev", "eth0")
    serve = (
        "import socket; s = socket.create_server(('', 22)); print('ready', flush=True); s.accept()[0].send(b'hello')"
    )
    command = ["ip", "netns", "exec", one.name, sys.executable, "-c", serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        assert joined.a.ask("connect", l3=L3, ip="192.168.50.10", port=22) == "hello"
    with pytest.raises(Transient) as refused:
        joined.a.ask("connect", l3=L3, ip="192.168.50.10", port=23)
    assert refused.value.code == "connect_failed"
    with pytest.raises(NotFound):
        joined.b.ask("connect", l3=L3, ip="192.168.50.10", port=22)
