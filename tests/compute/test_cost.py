"""What creating costs the database, counted, so that it does not creep up; and that turns given up leave nothing."""

import threading
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from cloud.common.errors import NoHostFits
from cloud.common.turns import in_turns
from cloud.infra.models import Host, HostCapacity
from compute.models import Instance
from compute.services import instances, scheduler
from compute.services.scheduler import Needs
from compute.workflows import domains
from network.services import nics
from storage.models import StorageCapacity
from storage.services.placement import VolumeNeed
from tests.base.clients import member_client
from tests.compute.test_concurrency import at_once, codes, made_of
from tests.compute.world import GIB, World
from tests.factories.infra import AgentFactory
from tests.factories.storage import DiskOfferingFactory
from tests.network import factories as networks

CONTROL = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")


def statements(queries: CaptureQueriesContext) -> list[str]:
    """What the database was asked, without the words that only begin and end transactions."""
    return [each["sql"] for each in queries.captured_queries if not each["sql"].startswith(CONTROL)]


def create(world: World, count: int, **wish: Any) -> int:
    with CaptureQueriesContext(connection) as queries:
        world.begin("vm-{n}", count=count, cpu=1, memory_bytes=GIB // 64, root_bytes=GIB // 4, data=[], **wish)
    return len(statements(queries))


class TestStatements:
    def test_of_one_with_its_request(self, two_hosts: World) -> None:
        client = member_client(project=two_hosts.image.project)
        body = {
            "name": "vm",
            "image": str(two_hosts.image.pk),
            "cpu": 1,
            "memory_bytes": GIB // 8,
            "nics": [{"l3_network": str(two_hosts.l3.pk)}],
            "root_volume": {"size_bytes": GIB},
        }
        for _host in two_hosts.hosts:  # the image is new to a host once
            assert client.post("/api/v1/instances/", body).status_code == 202
        with CaptureQueriesContext(connection) as queries:
            answer = client.post("/api/v1/instances/", body)
        assert answer.status_code == 202, answer.content
        assert len(statements(queries)) <= 25

    def test_of_many_are_those_of_a_few(self, two_hosts: World) -> None:
        create(two_hosts, 2)
        few, many = create(two_hosts, 3), create(two_hosts, 60)
        assert many == few <= 30
        two_hosts.expect_sums()

    def test_of_starting(self, world: World) -> None:
        instance = world.stopped()
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            instances.start(instance, actor=world.admin)
        assert len(statements(queries)) <= 25


class TestManyHosts:
    HOSTS = 300

    @pytest.fixture
    def crowd(self, two_hosts: World) -> World:
        agents = [AgentFactory.build(name=f"agent-{n}", project=two_hosts.cluster.project) for n in range(self.HOSTS)]
        made = type(two_hosts.host.agent).objects.bulk_create(agents_of(agents))  # type: ignore[union-attr]
        hosts = Host.objects.bulk_create(
            Host(
                name=f"more-{number}",
                cluster=two_hosts.cluster,
                agent=agent,
                address=agent.address,
                state="ready",
                connection="connected",
                project=two_hosts.cluster.project,
            )
            for number, agent in enumerate(made)
        )
        HostCapacity.objects.bulk_create(
            HostCapacity(host=host, cpu_total=4, memory_total_bytes=9 * GIB) for host in hosts
        )
        now = StorageCapacity.objects.values_list("reported_at", flat=True)[0]
        StorageCapacity.objects.bulk_create(
            StorageCapacity(
                primary_storage=two_hosts.storage,
                host=host,
                total_bytes=100 * GIB,
                available_bytes=100 * GIB,
                reported_at=now,
            )
            for host in hosts
        )
        return two_hosts

    def needs(self, world: World, **changes: Any) -> Needs:
        given = {"cpu": 1, "memory_bytes": GIB, "volumes": (VolumeNeed(GIB, image=world.image),)}
        return Needs(**{**given, "l3_networks": (world.l3,), **changes})

    def test_statements_do_not_grow_with_hosts(self, crowd: World) -> None:
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            scheduler.reserve(self.needs(crowd))
        assert len(statements(queries)) <= 6
        too_large = self.needs(crowd, volumes=(VolumeNeed(1000 * GIB),))
        with CaptureQueriesContext(connection) as queries, pytest.raises(NoHostFits), transaction.atomic():
            scheduler.reserve(too_large)
        assert len(statements(queries)) <= 8

    def test_the_emptiest_are_chosen_and_equals_share(self, crowd: World) -> None:
        HostCapacity.objects.exclude(host__name__startswith="more-1").update(memory_used_bytes=4 * GIB)
        with transaction.atomic():
            chosen = [scheduler.reserve(self.needs(crowd)).name for _turn in range(20)]
        assert all(name.startswith("more-1") for name in chosen)
        assert len(set(chosen)) > 5

    def test_reasons_name_every_host_once(self, crowd: World) -> None:
        with pytest.raises(NoHostFits) as caught:
            crowd.begin(cpu=400)
        assert len(caught.value.extra["reasons"]) == self.HOSTS + 2


def agents_of(built: list[Any]) -> list[Any]:
    for number, agent in enumerate(built):
        agent.address = f"10.77.{number // 250}.{number % 250 + 1}"
        agent.facts = {"nics": networks.cards()}
    return built


def test_a_busy_host_is_passed_over_not_waited_for(two_hosts: World) -> None:
    """Another request books on the emptiest host and has not ended: the next goes to the other host at once."""
    first = two_hosts.begin(memory_bytes=GIB // 4, root_bytes=GIB, data=[])[0][0]
    done, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            HostCapacity.objects.filter(host=other).update(cpu_used=0)
            done.set()
            go_on.wait(30)
        connection.close()

    other = next(host for host in two_hosts.hosts if host != first.host)
    thread = threading.Thread(target=hold)
    thread.start()
    done.wait(30)
    second = two_hosts.begin(memory_bytes=GIB // 4, root_bytes=GIB, data=[])[0][0]
    go_on.set()
    thread.join()
    assert second.host == first.host


class TestTurns:
    def test_a_broken_deadlock_is_another_turn(self, two_hosts: World) -> None:
        """Each holds what the other wants next: the database gives one of them up, and its act begins anew."""
        meet, tried = threading.Barrier(2, timeout=30), []
        keys = [host.pk for host in two_hosts.hosts]

        def act(number: int) -> None:
            first, second = keys if number else reversed(keys)
            with_turns(first, second)

        @in_turns()
        def with_turns(first: Any, second: Any) -> None:
            tried.append(first)
            HostCapacity.objects.filter(host=first).update(cpu_used=1)
            if len(tried) <= 2:
                meet.wait()
            HostCapacity.objects.filter(host=second).update(cpu_used=1)

        at_once(act, 2)
        assert len(tried) >= 3

    def test_other_errors_of_the_database_are_told(self, db: None) -> None:
        tried = []

        @in_turns()
        def act() -> None:
            tried.append(1)
            raise OperationalError("the server went away")

        with pytest.raises(OperationalError):
            act()
        assert len(tried) == 1

    def test_batches_through_the_same_hosts(self, two_hosts: World) -> None:
        """Many batches at once over the same hosts and storages: none waits in a ring, all or nothing each."""
        wish = {"count": 8, "cpu": 1, "memory_bytes": GIB // 8, "root_bytes": GIB // 4, "data": []}
        met = at_once(lambda number: two_hosts.begin(f"b{number}-{{n}}", **wish), 6)
        assert len(made_of(met)) == 48
        assert not codes(met)
        two_hosts.expect_sums()
        two_hosts.settle()
        assert set(Instance.objects.values_list("state", flat=True)) == {"running"}

    def test_a_taken_mac_is_drawn_again(self, two_hosts: World, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = iter(["fa:00:00:00:00:01", "fa:00:00:00:00:01", "fa:00:00:00:00:02"])
        monkeypatch.setattr(nics, "_random_mac", lambda: next(drawn))
        two_hosts.begin("first")
        two_hosts.begin("second")
        two_hosts.expect_sums()
        assert Instance.objects.count() == 2


def test_limits_of_a_disk_offering_reach_the_domain(world: World) -> None:
    offering = DiskOfferingFactory(read_iops=500, write_bytes_per_s=1 << 20)
    instance = world.create(data=[VolumeNeed(GIB, disk_offering=offering)])
    offering.delete()
    root, data = domains.spec(instance).volumes
    assert (data.read_iops, data.write_iops, data.write_bytes_per_s) == (500, 0, 1 << 20)
    assert (root.read_iops, root.write_bytes_per_s) == (0, 0)
