"""L2 networks: what each kind needs, VNIs, attaching and what stands in the way."""

import threading
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from cloud.common.errors import Conflict, Exhausted, Invalid, NotPermitted
from cloud.events.models import AuditRecord
from cloud.infra.models import DesiredSection
from network.models import L2Attachment, L2Kind, L2Network, Vtep
from network.services import l2, nics, placement
from tests.base.clients import member_client
from tests.cloud.agent.waiting import wait_until
from tests.network import factories as make
from tests.network.factories import ACTOR

pytestmark = pytest.mark.django_db


def numbers(section: str = "networks") -> dict[str, int]:
    """The wanted number of a section by host."""
    rows = DesiredSection.objects.filter(section=section).values_list("agent__host__name", "wanted")
    return dict(rows)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "no_vlan"}, "physical_interface"),
        ({"kind": "no_vlan", "physical_interface": "eth1; reboot"}, "physical_interface"),
        ({"kind": "no_vlan", "physical_interface": "eth1", "vlan_id": 5}, "vlan_id"),
        ({"kind": "vlan", "physical_interface": "eth1"}, "vlan_id"),
        ({"kind": "vlan", "physical_interface": "eth1", "vlan_id": 4095}, "vlan_id"),
        ({"kind": "vxlan"}, "pool"),
        ({"kind": "vxlan_pool", "vni_ranges": [{"start": 1, "end": 2}]}, "vtep_cidr"),
        ({"kind": "vxlan_pool", "vtep_cidr": "10.0.0.1/24", "vni_ranges": [{"start": 1, "end": 2}]}, "vtep_cidr"),
        ({"kind": "vxlan_pool", "vtep_cidr": "10.0.0.0/24"}, "vni_ranges"),
        ({"kind": "vxlan_pool", "vtep_cidr": "10.0.0.0/24", "vni_ranges": [{"start": 9, "end": 2}]}, "vni_ranges"),
        ({"kind": "no_vlan", "physical_interface": "eth1", "mtu": 100}, "mtu"),
    ],
)
def test_fields_must_fit_the_kind(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        l2.create(actor=ACTOR, zone=make.zone(), name="x", **fields)
    assert list(caught.value.errors) == [field]
    assert not L2Network.objects.exists()


def test_vnis_are_given_lowest_first_and_once() -> None:
    pool = make.pool(start=10, end=12)
    first, second = make.vxlan(pool), make.vxlan(pool, vni=12)
    assert (first.vni, second.vni, make.vxlan(pool).vni) == (10, 12, 11)
    with pytest.raises(Exhausted) as caught:
        make.vxlan(pool)
    assert caught.value.code == "vnis_exhausted"
    l2.delete(first, actor=ACTOR)
    assert make.vxlan(pool).vni == 10
    l2.add_vni_range(pool, start=20, end=20, actor=ACTOR)
    assert make.vxlan(pool).vni == 20


def test_chosen_vni() -> None:
    pool = make.pool(start=10, end=12)
    make.vxlan(pool, vni=11)
    with pytest.raises(Conflict) as taken:
        make.vxlan(pool, vni=11)
    assert taken.value.code == "vni_taken"
    with pytest.raises(Invalid) as outside:
        make.vxlan(pool, vni=13)
    assert outside.value.code == "vni_out_of_range"


@pytest.mark.django_db(transaction=True)
def test_last_vni_goes_to_one_of_two() -> None:
    pool = make.pool(start=10, end=10)
    answers: list[str] = []
    start = threading.Barrier(2)

    def ask() -> None:
        try:
            start.wait()
            answers.append(str(make.vxlan(pool).vni))
        except Exhausted as error:
            answers.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["10", "vnis_exhausted"]


def test_vni_ranges_of_a_zone_do_not_overlap() -> None:
    zone = make.zone()
    make.pool(zone, start=10, end=20)
    with pytest.raises(Conflict) as caught:
        make.pool(zone, start=20, end=30)
    assert caught.value.code == "vni_range_overlap"
    make.pool(start=20, end=30)  # another zone


def test_mtu_leaves_room_for_the_tunnel() -> None:
    assert make.vxlan(make.pool()).mtu == 1450
    assert make.vxlan(make.pool(mtu=9000)).mtu == 8950
    with pytest.raises(Invalid):
        make.vxlan(make.pool(), mtu=1451)


def test_pool_brings_its_networks_along() -> None:
    cluster = make.cluster()
    host = make.host(cluster, "10.99.1.11")
    pool = make.pool(cluster.zone)
    before = make.vxlan(pool)
    l2.attach(pool, cluster=cluster, actor=ACTOR)
    after = make.vxlan(pool)
    assert set(L2Attachment.objects.values_list("l2", flat=True)) == {pool.pk, before.pk, after.pk}
    assert Vtep.objects.get(host=host, pool=pool).address == "10.99.1.11"
    l2.detach(pool, cluster=cluster, actor=ACTOR)
    assert not L2Attachment.objects.exists()


def test_attaching_twice_is_once_and_other_zones_are_refused() -> None:
    cluster = make.cluster()
    network = make.no_vlan(cluster.zone)
    l2.attach(network, cluster=cluster, actor=ACTOR)
    l2.attach(network, cluster=cluster, actor=ACTOR)
    assert L2Attachment.objects.count() == 1
    with pytest.raises(Invalid) as caught:
        l2.attach(network, cluster=make.cluster(), actor=ACTOR)
    assert caught.value.code == "other_zone"


def test_interface_carries_one_network_of_a_kind() -> None:
    cluster = make.cluster()
    attach = {"clusters": [cluster]}
    make.no_vlan(cluster.zone, **attach)
    for number in (10, 11):
        make.no_vlan(cluster.zone, kind=L2Kind.VLAN, vlan_id=number, **attach)
    for fields in ({}, {"kind": L2Kind.VLAN, "vlan_id": 10}):
        with pytest.raises(Conflict) as caught:
            make.no_vlan(cluster.zone, **fields, **attach)
        assert caught.value.code == "interface_in_use"
    assert L2Network.objects.count() == 3


def test_everyone_concerned_is_told() -> None:
    one = make.cluster()
    other = make.cluster(zone=one.zone)
    make.host(one, "10.99.1.11", name="a")
    make.host(other, "10.99.1.12", name="b")
    make.host(make.cluster(zone=one.zone), "10.99.1.13", name="elsewhere")
    network = make.vxlan(make.pool(one.zone))
    l2.attach(network, cluster=one, actor=ACTOR)
    assert numbers() == {"a": 1}
    l2.attach(network, cluster=other, actor=ACTOR)
    assert numbers() == {"a": 2, "b": 1}
    l2.detach(network, cluster=one, actor=ACTOR)
    assert numbers() == {"a": 3, "b": 2}
    l2.delete(network, actor=ACTOR)
    assert numbers() == {"a": 3, "b": 3}


def test_network_in_use_stays() -> None:
    cluster = make.cluster()
    host = make.host(cluster)
    network = make.no_vlan(cluster.zone, clusters=[cluster])
    nic = make.nic(make.l3(network))
    nics.place([nic], host)
    with pytest.raises(Conflict) as attached:
        l2.detach(network, cluster=cluster, actor=ACTOR)
    with pytest.raises(Conflict) as used:
        l2.delete(network, actor=ACTOR)
    assert (attached.value.code, used.value.code) == ("in_use", "in_use")
    nics.unplace([nic])
    l2.detach(network, cluster=cluster, actor=ACTOR)
    with pytest.raises(Conflict):
        l2.delete(make.vxlan().pool, actor=ACTOR)


def test_acts_need_rights_and_leave_records() -> None:
    network = make.no_vlan()
    project = network.project
    with pytest.raises(NotPermitted):
        l2.delete(network, actor=member_client("monitor_only", project).actor)
    l2.update(network, name="other", actor=ACTOR)
    l2.delete(network, actor=ACTOR)
    assert list(AuditRecord.objects.values_list("action", flat=True)) == [
        "l2_network.create",
        "l2_network.update",
        "l2_network.delete",
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["place", "reason_against"])
def test_network_is_not_detached_from_under_a_start(step: str) -> None:
    """Whoever chose a host by its networks, or placed a NIC there, is waited for, and then seen."""
    cluster = make.cluster()
    host = make.host(cluster)
    network = make.no_vlan(cluster.zone, clusters=[cluster])
    l3 = make.l3(network)
    nic = make.nic(l3)
    waited: list[Exception] = []

    def detach() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '100ms'")
            l2.detach(network, cluster=cluster, actor=ACTOR)
        except Exception as error:
            waited.append(error)
        finally:
            connection.close()

    with transaction.atomic():
        if step == "place":
            nics.place([nic], host)
        else:
            assert placement.reason_against(host, [l3]) is None
        thread = threading.Thread(target=detach)
        thread.start()
        thread.join()
        nics.place([nic], host)
    assert [type(error) for error in waited] == [OperationalError]  # it would have waited for this transaction
    with pytest.raises(Conflict) as caught:
        l2.detach(network, cluster=cluster, actor=ACTOR)
    assert caught.value.code == "in_use"


@pytest.mark.django_db(transaction=True)
def test_detaching_sees_who_was_waited_for() -> None:
    cluster = make.cluster()
    host = make.host(cluster)
    network = make.no_vlan(cluster.zone, clusters=[cluster])
    nic = make.nic(make.l3(network))
    answers: list[str] = []

    def detach() -> None:
        try:
            l2.detach(network, cluster=cluster, actor=ACTOR)
        except Conflict as error:
            answers.append(error.code)
        finally:
            connection.close()

    thread = threading.Thread(target=detach)
    with transaction.atomic():
        nics.place([nic], host)
        thread.start()
        wait_until(_somebody_waits)
    thread.join()
    assert answers == ["in_use"]
    assert L2Attachment.objects.exists()


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])
