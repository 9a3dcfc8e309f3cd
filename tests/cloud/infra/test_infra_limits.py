"""Limits are written down beside what is promised, and follow settings in the transaction that changes them."""

import importlib
import threading
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction

from cloud.common.actor import Actor
from cloud.config import services as config
from cloud.config.models import Override
from cloud.infra.models import Cluster, Host, HostCapacity
from cloud.infra.services import capacity
from storage.models import StorageCapacity
from tests.base.clients import Client
from tests.factories.infra import GIB, ClusterFactory, HostFactory
from tests.factories.storage import storage_on

CPU, RESERVED = "host.cpu_overprovisioning", "host.reserved_memory"


def limit(host: Host) -> tuple[int, int]:
    row = HostCapacity.objects.get(host=host)
    return row.cpu_limit, row.memory_limit_bytes


@pytest.mark.django_db
class TestHosts:
    def test_a_setting_reaches_the_hosts_below_it(self, actor: Actor) -> None:
        near, alike, far = HostFactory(), HostFactory(), HostFactory()
        Host.objects.filter(pk=alike.pk).update(cluster=near.cluster)
        config.change(CPU, value=2.0, actor=actor, scope_type="cluster", scope_uuid=near.cluster_id)
        assert [limit(host)[0] for host in (near, alike, far)] == [8, 8, 40]
        config.change(CPU, value=3.0, actor=actor, scope_type="zone", scope_uuid=far.cluster.zone_id)
        config.change(CPU, value=5.0, actor=actor)
        assert [limit(host)[0] for host in (near, alike, far)] == [8, 8, 12]
        config.reset(CPU, actor=actor, scope_type="cluster", scope_uuid=near.cluster_id)
        assert [limit(host)[0] for host in (near, alike, far)] == [20, 20, 12]
        config.reset(CPU, actor=actor)
        assert [limit(host)[0] for host in (near, alike, far)] == [40, 40, 12]

    def test_a_change_that_is_taken_back_leaves_no_limit(self, actor: Actor) -> None:
        host = HostFactory()
        with transaction.atomic():
            config.change(CPU, value=2.0, actor=actor)
            assert limit(host)[0] == 8
            transaction.set_rollback(True)
        assert limit(host)[0] == 40

    def test_totals_and_a_first_report(self, actor: Actor) -> None:
        host = HostFactory(has_capacity=False)
        config.change(RESERVED, value=2 * GIB, actor=actor, scope_type="host", scope_uuid=host.pk)
        capacity.set_totals(host, cpu=2, memory_bytes=8 * GIB)
        assert limit(host) == (20, 6 * GIB)
        capacity.set_totals(host, cpu=4, memory_bytes=GIB)
        assert limit(host) == (40, 0)

    def test_another_cluster(self, actor: Actor) -> None:
        host, other = HostFactory(), ClusterFactory()
        config.change(CPU, value=2.0, actor=actor, scope_type="cluster", scope_uuid=other.pk)
        Host.objects.filter(pk=host.pk).update(cluster=other)
        assert capacity.write_rules(Host.objects.filter(pk=host.pk)) == []
        assert limit(host)[0] == 8

    def test_lower_than_what_is_promised_is_told_and_stops_new_work(self, admin: Client) -> None:
        host = HostFactory(name="full")
        assert capacity.take(host, cpu=30, memory_bytes=GIB)
        answer = admin.patch(f"/api/v1/settings/{CPU}/", {"value": 2})
        assert answer.status_code == 200
        assert "full" in answer.json()["notes"][0]
        assert not capacity.take(host, cpu=1, memory_bytes=1)
        capacity.give_back(host, cpu=29, memory_bytes=0)
        assert capacity.take(host, cpu=7, memory_bytes=1)
        assert admin.patch(f"/api/v1/settings/{CPU}/", {"value": 2}).json()["notes"] == []
        assert admin.get(f"/api/v1/settings/{CPU}/").json()["notes"] == []

    def test_nothing_is_larger_than_a_column(self, actor: Actor) -> None:
        host = HostFactory()
        config.change("host.memory_overprovisioning", value=10.0, actor=actor)
        capacity.set_totals(host, cpu=2**31 - 1, memory_bytes=2**62)
        assert limit(host) == ((2**31 - 1) * 10, 2**62)

    def test_several_are_taken_all_or_nothing(self) -> None:
        first, second = HostFactory(), HostFactory()
        one = capacity.Amount(1, 8 * GIB)
        with transaction.atomic():
            assert capacity.take_all({first.pk: one, second.pk: one})
        with transaction.atomic():
            assert not capacity.take_all({first.pk: capacity.Amount(1, 0), second.pk: one})
            transaction.set_rollback(True)
        assert capacity.take_first([first.pk, second.pk], capacity.Amount(1, 1)) is None
        assert capacity.take_first([second.pk, first.pk], capacity.Amount(1, 0)) == second.pk


@pytest.mark.django_db
class TestStorages:
    def test_a_setting_reaches_the_storages_below_it(self, actor: Actor) -> None:
        near, far = storage_on(total_bytes=11 * GIB), storage_on(total_bytes=11 * GIB)
        place = near.host.cluster
        name = "primary_storage.overprovisioning"
        config.change(name, value=2.0, actor=actor, scope_type="cluster", scope_uuid=place.pk)
        config.change(name, value=3.0, actor=actor, scope_type="zone", scope_uuid=far.primary_storage.zone_id)
        assert [limit_of(near), limit_of(far)] == [20 * GIB, 30 * GIB]
        config.change(name, value=4.0, actor=actor, scope_type="primary_storage", scope_uuid=far.primary_storage_id)
        config.change("primary_storage.reserved_capacity", value=0, actor=actor)
        assert [limit_of(near), limit_of(far)] == [22 * GIB, 44 * GIB]

    def test_lower_than_what_is_promised_is_told(self, actor: Actor) -> None:
        row = storage_on(total_bytes=11 * GIB)
        StorageCapacity.objects.update(used_bytes=10 * GIB)
        told = config.change("primary_storage.reserved_capacity", value=2 * GIB, actor=actor).notes
        assert row.primary_storage.name in str(told[0])


def limit_of(capacity_row: StorageCapacity) -> int:
    return StorageCapacity.objects.get(pk=capacity_row.pk).limit_bytes


@pytest.mark.django_db(transaction=True)
def test_hosts_that_report_while_settings_change(actor: Actor) -> None:
    """Whoever is first: in the end each host's limit is that of the last setting."""
    cluster: Cluster = ClusterFactory()
    hosts = [HostFactory(cluster=cluster, has_capacity=False) for _ in range(6)]
    start, errors = threading.Barrier(8), list[Exception]()

    def run(act: Any) -> None:
        try:
            start.wait(30)
            act()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def change(value: float) -> None:
        for step in range(4):
            config.change(CPU, value=value + step, actor=actor, scope_type="cluster", scope_uuid=cluster.pk)

    acts: list[Any] = [lambda: change(2.0), lambda: change(20.0)]
    acts += [lambda host=host: capacity.set_totals(host, cpu=4, memory_bytes=9 * GIB) for host in hosts]
    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    value = Override.objects.get(name=CPU).value
    assert {limit(host)[0] for host in hosts} == {int(4 * value)}


@pytest.mark.django_db
@pytest.mark.parametrize("app", ["cloud.infra.migrations.0004_limits", "storage.migrations.0002_limits"])
def test_what_there_was_has_its_rules(actor: Actor, app: str) -> None:
    row = storage_on(total_bytes=11 * GIB)
    for name, kind, key, value in (
        (CPU, "zone", row.host.cluster.zone_id, 2.0),
        (RESERVED, "host", row.host_id, 3 * GIB),
        ("primary_storage.overprovisioning", "cluster", row.host.cluster_id, 2.0),
    ):
        Override.objects.create(name=name, scope_type=kind, scope_uuid=key, value=value)
    importlib.import_module(app).write_rules(apps, None)
    if "infra" in app:
        assert limit(row.host) == (8, 6 * GIB)
    else:
        assert limit_of(row) == 20 * GIB


def test_the_defaults_are_those_of_the_settings() -> None:
    from cloud.config import registry
    from storage.models import promises

    defaults = {
        field: HostCapacity._meta.get_field(field).default
        for field in ("cpu_ratio", "memory_ratio", "reserved_memory_bytes")
    }
    assert list(defaults.values()) == [registry.find(name).default for name in capacity.SETTINGS]
    fields = [StorageCapacity._meta.get_field(name).default for name in ("ratio", "reserved_bytes")]
    assert fields == [registry.find(name).default for name in promises.SETTINGS]
