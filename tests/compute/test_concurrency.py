"""Many callers at once for the last of something: each thing is had once, and nothing is lost."""

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection

from cloud.common.errors import Conflict, Problem
from cloud.infra.models import HostCapacity
from cloud.jobs.models import Job
from compute.models import Instance
from compute.services import instances
from compute.services.instances import NicWish
from network.models import AddressPurpose, IpAddress, Nic
from storage.models import StorageCapacity
from storage.services.placement import VolumeNeed
from tests.compute.world import GIB, STORAGE_BYTES, World
from tests.network import factories as networks

AT_ONCE = 20


def at_once(act: Callable[[int], Any], count: int = AT_ONCE) -> list[Any]:
    """What each of the callers got, or the error each met."""
    start, met = threading.Barrier(count), list[Any]()

    def call(number: int) -> None:
        start.wait()
        try:
            met.append(act(number))
        except Exception as error:
            met.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    strange = [error for error in met if isinstance(error, Exception) and not isinstance(error, Problem)]
    assert not strange, strange
    return met


def made_of(met: list[Any]) -> list[Instance]:
    return [instance for got in met if not isinstance(got, Exception) for instance in got[0]]


def codes(met: list[Any]) -> set[str]:
    return {error.code for error in met if isinstance(error, Problem)}


def test_the_last_five_addresses(two_hosts: World) -> None:
    small = networks.l3(two_hosts.l3.l2, cidr="10.1.0.0/28", start="10.1.0.5", end="10.1.0.10", gateway="10.1.0.1")
    wish = {"nics": [NicWish(small)], "memory_bytes": GIB // 8, "root_bytes": GIB}
    met = at_once(lambda number: two_hosts.begin(f"vm-{number}", **wish))
    assert len(made_of(met)) == Instance.objects.count() == Job.objects.count() == 5
    assert codes(met) == {"addresses_exhausted"}
    held = IpAddress.objects.filter(l3=small, purpose=AddressPurpose.NIC).values_list("address", flat=True)
    assert sorted(held) == sorted(Nic.objects.values_list("address", flat=True))
    assert len(set(held)) == 5
    two_hosts.expect_sums()
    two_hosts.settle()
    assert set(Instance.objects.values_list("state", flat=True)) == {"running"}
    two_hosts.expect_sums()


def test_one_chosen_address(two_hosts: World) -> None:
    met = at_once(
        lambda number: two_hosts.begin(f"vm-{number}", nics=[NicWish(two_hosts.l3, "192.168.50.77")], root_bytes=GIB)
    )
    assert (len(made_of(met)), codes(met)) == (1, {"address_taken"})
    two_hosts.expect_sums()


def test_the_last_memory(two_hosts: World) -> None:
    """8 GiB on each host; 2 GiB each: eight of twenty have room."""
    met = at_once(lambda number: two_hosts.begin(f"vm-{number}", memory_bytes=2 * GIB, root_bytes=GIB))
    assert (len(made_of(met)), codes(met)) == (8, {"no_host_fits"})
    assert set(HostCapacity.objects.values_list("memory_used_bytes", flat=True)) == {8 * GIB}
    two_hosts.expect_sums()


def test_the_last_disk_space(two_hosts: World) -> None:
    """Room for three on each host; whoever finds the first full gets the second."""
    StorageCapacity.objects.update(used_bytes=0, available_bytes=31 * GIB)
    wish = {"memory_bytes": GIB // 8, "root_bytes": 9 * GIB, "data": [VolumeNeed(GIB // 2)]}
    met = at_once(lambda number: two_hosts.begin(f"vm-{number}", **wish))
    assert (len(made_of(met)), codes(met)) == (6, {"no_host_fits"})
    assert STORAGE_BYTES > 31 * GIB
    two_hosts.expect_sums()


def test_several_each_all_or_nothing(two_hosts: World) -> None:
    """Three a call, 16 GiB in all: five calls have room, whatever hosts they go through in whatever order."""
    met = at_once(
        lambda number: two_hosts.begin(f"vm-{number}-{{n}}", count=3, memory_bytes=GIB, root_bytes=GIB, data=[]), 8
    )
    assert (len(made_of(met)), codes(met)) == (15, {"no_host_fits"})
    two_hosts.expect_sums()
    two_hosts.settle()
    assert set(Job.objects.values_list("state", flat=True)) == {"succeeded"}


def test_one_instance_started_by_many(two_hosts: World) -> None:
    instance = two_hosts.stopped()
    met = at_once(lambda _number: instances.start(instance, actor=two_hosts.admin), 8)
    jobs = [got for got in met if isinstance(got, Job)]
    assert (len(jobs), codes(met)) == (1, {"busy"})
    assert {error.extra["job"] for error in met if isinstance(error, Conflict)} == {f"/api/v1/jobs/{jobs[0].pk}/"}
    two_hosts.settle()
    assert two_hosts.fresh(instance).state == "running"
    two_hosts.expect_sums()


def test_everything_destroyed_and_expunged_at_once(two_hosts: World) -> None:
    before = two_hosts.ledger()
    made, _parent = two_hosts.begin(count=6, memory_bytes=GIB)
    two_hosts.settle()
    for verb in (instances.destroy, instances.expunge):
        met = at_once(lambda number, verb=verb: verb(made[number], actor=two_hosts.admin), 6)
        assert all(isinstance(job, Job) for job in met)
        two_hosts.settle()
    assert two_hosts.ledger() == before
    two_hosts.expect_sums()
