"""Clusters come to a storage and leave it: what may be promised meanwhile, and what stays when it does not work out."""

import uuid
from typing import Any

import pytest
from django.db import transaction

from cloud.common.actor import Actor
from cloud.common.errors import Exhausted
from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from storage.messages import CapacityReport, StorageReport
from storage.models import CacheState, ImageCache, PrimaryStorage, StorageCapacity, Volume, attachments, promises
from storage.services import images, primary_storages, reports, sections, volumes
from storage.services.placement import VolumeNeed
from tests.factories.infra import ClusterFactory, HostFactory
from tests.factories.storage import GIB, ImageFactory, VolumeFactory, storage_on

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(touched: list[Any]) -> Any:
    return HostFactory()


@pytest.fixture
def storage(host: Any) -> PrimaryStorage:
    """Attached to the cluster of `host`, which has reported it."""
    found: PrimaryStorage = storage_on(host).primary_storage
    return found


@pytest.fixture
def newcomer(host: Any) -> Any:
    """A host of another cluster of the zone."""
    return HostFactory(cluster=ClusterFactory(zone=host.cluster.zone))


def report(host: Any, storage: PrimaryStorage, **fields: Any) -> None:
    one = StorageReport(str(storage.pk), **{"total_bytes": 10 * GIB, "available_bytes": 9 * GIB, **fields})
    reports.note(host.agent, CapacityReport([one]))


def make(host: Any) -> Volume:
    return volumes.create(
        uuid=uuid.uuid4(),
        name="disk",
        kind="data",
        need=VolumeNeed(GIB),
        host=host,
        project=host.project,
        instance_uuid=None,
        device_index=None,
    )


def cached(storage: PrimaryStorage, host: Any, *, is_expunged: bool = False) -> ImageCache:
    image = ImageFactory()
    StorageCapacity.objects.filter(primary_storage=storage, host=host).update(used_bytes=GIB)
    copy: ImageCache = ImageCache.objects.create(
        image=None if is_expunged else image,
        image_uuid=image.pk,
        primary_storage=storage,
        host=host,
        size_bytes=GIB,
        state=CacheState.EVICTING if is_expunged else CacheState.READY,
    )
    return copy


def state(job: Job) -> str:
    return str(Job.objects.get(pk=job.pk).state)


def is_open(storage: PrimaryStorage, host: Any) -> bool:
    return StorageCapacity.objects.get(primary_storage=storage, host=host).is_open


def test_volumes_land_on_new_hosts_only_when_they_are_attached(
    host: Any, storage: PrimaryStorage, newcomer: Any, line: Any, actor: Actor
) -> None:
    second = HostFactory(cluster=newcomer.cluster)
    late = HostFactory(cluster=host.cluster)
    job = primary_storages.attach(storage, actor=actor, cluster=newcomer.cluster)
    line.run()
    report(newcomer, storage)
    report(late, storage)
    line.run()
    assert state(job) == JobState.RUNNING
    with pytest.raises(Exhausted):
        make(newcomer)
    make(host)
    report(second, storage)
    line.run()
    assert state(job) == JobState.SUCCEEDED
    for each in (newcomer, second, late):
        make(each)


def test_an_attach_that_fails_leaves_what_was_there_before(
    host: Any, storage: PrimaryStorage, newcomer: Any, line: Any, actor: Actor
) -> None:
    volume = VolumeFactory(primary_storage=storage, host=host)
    job = primary_storages.attach(storage, actor=actor, cluster=newcomer.cluster)
    line.run()
    report(newcomer, storage, failure="read-only file system")
    line.run()
    assert state(job) == JobState.FAILED
    assert list(storage.clusters.all()) == [host.cluster]
    assert StorageCapacity.objects.get().host == host
    assert is_open(storage, host)
    assert Volume.objects.get() == volume


def test_clusters_whose_volumes_are_on_it_stay(host: Any, storage: PrimaryStorage, newcomer: Any) -> None:
    empty = HostFactory(cluster=ClusterFactory(zone=host.cluster.zone))
    attachments.add(storage, [newcomer.cluster, empty.cluster])
    report(newcomer, storage)
    VolumeFactory(primary_storage=storage, host=newcomer)
    assert attachments.remove(storage, [newcomer.cluster.pk, empty.cluster.pk]) == 1
    attachments.settle(storage)
    assert set(storage.clusters.all()) == {host.cluster, newcomer.cluster}
    assert is_open(storage, newcomer)


def test_a_detach_finds_a_volume_after_all(host: Any, storage: PrimaryStorage, line: Any, actor: Actor) -> None:
    job = primary_storages.detach(storage, actor=actor, cluster=host.cluster)
    VolumeFactory(primary_storage=storage, host=host)
    line.run()
    ended = Job.objects.get(pk=job.pk)
    assert (ended.state, ended.error["code"]) == (JobState.FAILED, "in_use")
    assert storage.attachments.exists()
    assert is_open(storage, host)


@pytest.mark.parametrize("act", ["detach", "delete"])
def test_cancelled_on_its_way_out_it_keeps_its_images(
    host: Any, storage: PrimaryStorage, line: Any, actor: Actor, touched: list[Any], act: str
) -> None:
    there, removed = cached(storage, host), cached(storage, host)
    expunged = cached(storage, host, is_expunged=True)
    StorageCapacity.objects.filter(host=host).update(used_bytes=3 * GIB)
    if act == "detach":
        job = primary_storages.detach(storage, actor=actor, cluster=host.cluster)
    else:
        job = primary_storages.delete(storage, actor=actor)
    line.run()
    assert not is_open(storage, host)
    assert len(sections.storages(host.agent)["storages"][0]["evict"]) == 3
    touched.clear()
    jobs.cancel(job, actor=actor)
    line.run()
    assert state(job) == JobState.CANCELLED
    assert is_open(storage, host)
    assert sections.storages(host.agent)["storages"][0]["evict"] == [str(expunged.image_uuid)]
    assert (host.agent_id, "storages") in touched

    report(host, storage, cached=[str(there.image_uuid), str(expunged.image_uuid)])
    assert dict(ImageCache.objects.values_list("pk", "state")) == {
        there.pk: CacheState.READY,
        expunged.pk: CacheState.EVICTING,
    }
    assert not ImageCache.objects.filter(pk=removed.pk).exists()
    assert StorageCapacity.objects.get(host=host).used_bytes == 2 * GIB


def test_detached_from_one_cluster_the_other_goes_on(
    host: Any, storage: PrimaryStorage, newcomer: Any, line: Any, actor: Actor
) -> None:
    with transaction.atomic():
        attachments.add(storage, [newcomer.cluster])
    report(newcomer, storage)
    cached(storage, host)
    job = primary_storages.detach(storage, actor=actor, cluster=host.cluster)
    late = HostFactory(cluster=newcomer.cluster)
    report(late, storage)
    assert not is_open(storage, late)
    report(host, storage, cached=[])
    line.run()
    assert state(job) == JobState.SUCCEEDED
    assert is_open(storage, late)
    assert is_open(storage, newcomer)
    assert not StorageCapacity.objects.filter(host=host).exists()


def test_a_report_that_comes_after_the_end_is_not_written_down(host: Any, storage: PrimaryStorage) -> None:
    attachments.remove(storage, [host.cluster.pk])
    promises.note(storage, host, StorageReport(str(storage.pk), total_bytes=1))
    assert not StorageCapacity.objects.exists()


def test_an_image_whose_copy_is_kept_can_be_expunged(
    host: Any, storage: PrimaryStorage, line: Any, actor: Actor
) -> None:
    copy = cached(storage, host)
    job = primary_storages.detach(storage, actor=actor, cluster=host.cluster)
    line.run()
    jobs.cancel(job, actor=actor)
    line.run()
    copy.refresh_from_db()
    assert (copy.state, copy.image_id) == (CacheState.PENDING, copy.image_uuid)
    images.delete(copy.image, actor=actor)
    images.expunge(copy.image, actor=actor)
