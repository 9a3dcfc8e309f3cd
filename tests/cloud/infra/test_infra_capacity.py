"""Room on hosts: promised at most once, given back, by the rules of the settings."""

import threading

import pytest
from django.db import connection

from cloud.common.actor import Actor
from cloud.config import services as config
from cloud.infra.models import Host, HostCapacity
from cloud.infra.services import capacity
from tests.factories.infra import GIB, HostFactory


@pytest.fixture
def host(db: None) -> Host:
    made: Host = HostFactory(cpu_threads=4, memory_bytes=9 * GIB)
    return made


def used(host: Host) -> tuple[int, int]:
    row = HostCapacity.objects.get(host=host)
    return row.cpu_used, row.memory_used_bytes


def limits(host: Host) -> tuple[int, int]:
    row = HostCapacity.objects.get(host=host)
    return row.cpu_limit, row.memory_limit_bytes


def test_take_and_give_back(host: Host) -> None:
    assert capacity.take(host, cpu=2, memory_bytes=GIB)
    assert used(host) == (2, GIB)
    capacity.give_back(host, cpu=2, memory_bytes=GIB)
    assert used(host) == (0, 0)


def test_defaults_are_ten_cpus_a_thread_and_a_gibibyte_kept(host: Host) -> None:
    assert limits(host) == (40, 8 * GIB)
    assert capacity.take(host, cpu=40, memory_bytes=8 * GIB)
    assert not capacity.take(host, cpu=0, memory_bytes=1)
    assert not capacity.take(host, cpu=1, memory_bytes=0)


def test_what_does_not_fit_changes_nothing(host: Host) -> None:
    assert not capacity.take(host, cpu=41, memory_bytes=1)
    assert not capacity.take(host, cpu=1, memory_bytes=8 * GIB + 1)
    assert used(host) == (0, 0)


def test_ratios_of_host_cluster_zone(host: Host, actor: Actor) -> None:
    scopes = (("zone", host.cluster.zone_id, 3.0), ("cluster", host.cluster_id, 2.0), ("host", host.pk, 1.0))
    for kind, uuid, ratio in scopes:
        config.change("host.cpu_overprovisioning", value=ratio, actor=actor, scope_type=kind, scope_uuid=uuid)
        assert limits(host)[0] == 4 * ratio
    config.change("host.memory_overprovisioning", value=1.5, actor=actor)
    config.change("host.reserved_memory", value=3 * GIB, actor=actor)
    assert limits(host)[1] == 9 * GIB
    assert capacity.take(host, cpu=4, memory_bytes=9 * GIB)
    assert not capacity.take(host, cpu=0, memory_bytes=1)


def test_giving_back_too_much_stops_at_nothing(host: Host) -> None:
    capacity.give_back(host, cpu=1, memory_bytes=1)
    assert used(host) == (0, 0)


def test_a_closed_host_takes_nothing(host: Host) -> None:
    capacity.take(host, cpu=1, memory_bytes=GIB)
    assert capacity.close(host) == GIB
    assert not capacity.take(host, cpu=0, memory_bytes=0)


def test_totals_change_and_promises_stay(host: Host) -> None:
    capacity.take(host, cpu=1, memory_bytes=GIB)
    capacity.set_totals(host, cpu=8, memory_bytes=17 * GIB)
    row = HostCapacity.objects.get(host=host)
    assert (row.cpu_total, row.memory_total_bytes, row.cpu_used, row.memory_used_bytes) == (8, 17 * GIB, 1, GIB)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_what_is_there_and_no_more() -> None:
    host = HostFactory(cpu_threads=1, memory_bytes=9 * GIB)  # 10 virtual CPUs
    start, taken = threading.Barrier(8), []

    def grab() -> None:
        start.wait()
        for _ in range(3):
            taken.append(capacity.take(host, cpu=1, memory_bytes=1024))
        connection.close()

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) == 10
    assert used(host) == (10, 10 * 1024)
