"""Bytes promised and given back: what fits, what does not and why, and that each promise is counted once."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Exhausted, Invalid
from cloud.common.models import Availability, Connection
from cloud.config import services as config
from storage.models import CacheState, Image, ImageCache, ImageState, Media, StorageCapacity, Volume, copies
from storage.services import placement, volumes
from storage.services.placement import VolumeNeed
from tests.factories.infra import HostFactory
from tests.factories.storage import GIB, ImageFactory, PrimaryStorageFactory, storage_on

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(touched: list[Any]) -> Any:
    return HostFactory()


def make(host: Any, need: VolumeNeed, **more: Any) -> Volume:
    fields: dict[str, Any] = {
        "uuid": uuid.uuid4(),
        "name": "disk",
        "kind": "root" if need.image else "data",
        "project": host.project,
        "instance_uuid": uuid.uuid4(),
        "device_index": 0,
    }
    return volumes.create(need=need, host=host, **{**fields, **more})


def used(capacity: StorageCapacity) -> int:
    capacity.refresh_from_db()
    return capacity.used_bytes


def test_a_volume_and_its_image_are_promised_and_given_back(host: Any) -> None:
    capacity, image = storage_on(host), ImageFactory()
    first = make(host, VolumeNeed(5 * GIB, image=image))
    assert (first.size_bytes, first.host, first.primary_storage) == (5 * GIB, host, capacity.primary_storage)
    assert used(capacity) == 6 * GIB
    second = make(host, VolumeNeed(5 * GIB, image=image))
    assert second.cache == first.cache
    assert used(capacity) == 11 * GIB
    assert [volumes.release(volume) for volume in (first, first, second, second)] == [True, False, True, False]
    assert used(capacity) == 0
    assert not ImageCache.objects.exists()
    assert not Volume.objects.exists()


def test_a_copy_that_is_there_stays_for_the_next_volume(host: Any) -> None:
    capacity, image = storage_on(host), ImageFactory()
    volume = make(host, VolumeNeed(image=image))
    copies.note_ready([volume.pk])
    volumes.release(volume)
    assert used(capacity) == image.actual_size_bytes
    assert ImageCache.objects.get().state == CacheState.READY


def test_the_copy_of_an_expunged_image_leaves_with_its_last_volume(host: Any) -> None:
    capacity, image = storage_on(host), ImageFactory()
    first, second = (make(host, VolumeNeed(image=image)) for _ in range(2))
    copies.note_ready([first.pk, second.pk])
    copies.evict_image(image)
    image.delete()
    volumes.release(first)
    cache = ImageCache.objects.get()
    assert (cache.state, cache.image) == (CacheState.READY, None)
    second.refresh_from_db()
    volumes.release(second)
    assert ImageCache.objects.get().state == CacheState.EVICTING
    copies.note_listed(host.agent, capacity.primary_storage, host, cached=[str(cache.image_uuid)])
    assert used(capacity) == GIB
    copies.note_listed(host.agent, capacity.primary_storage, host, cached=[])
    assert used(capacity) == 0
    assert not ImageCache.objects.exists()


def test_a_copy_that_is_leaving_is_not_handed_out(host: Any) -> None:
    capacity, image = storage_on(host), ImageFactory()
    volume = make(host, VolumeNeed(image=image))
    copies.note_ready([volume.pk])
    volumes.release(volume)
    copies.evict(ImageCache.objects.all())
    with pytest.raises(Exhausted):
        make(host, VolumeNeed(image=image))
    assert used(capacity) == image.actual_size_bytes
    copies.keep(ImageCache.objects.all())
    assert make(host, VolumeNeed(image=image)).cache == ImageCache.objects.get()


def test_a_copy_in_use_is_not_forgotten_because_it_is_not_listed(host: Any) -> None:
    capacity, image = storage_on(host), ImageFactory()
    waiting = make(host, VolumeNeed(image=image))
    copies.note_listed(host.agent, capacity.primary_storage, host, cached=[])
    assert ImageCache.objects.get().state == CacheState.PENDING
    copies.note_ready([waiting.pk])
    copies.note_listed(host.agent, capacity.primary_storage, host, cached=[])
    assert ImageCache.objects.get().state == CacheState.READY
    volumes.release(waiting)
    copies.note_listed(host.agent, capacity.primary_storage, host, cached=[])
    assert used(capacity) == 0


def test_as_large_as_the_image_when_nothing_is_said(host: Any) -> None:
    storage_on(host)
    assert make(host, VolumeNeed(image=ImageFactory(size_bytes=7 * GIB))).size_bytes == 7 * GIB


def test_smaller_than_the_image_is_refused(host: Any) -> None:
    storage_on(host)
    with pytest.raises(Invalid) as refused:
        make(host, VolumeNeed(GIB, image=ImageFactory()))
    assert refused.value.code == "volume_smaller_than_image"
    assert "size_bytes" in refused.value.errors


def test_without_a_size(host: Any) -> None:
    storage_on(host)
    with pytest.raises(Invalid):
        make(host, VolumeNeed())


@pytest.mark.parametrize("fields", [{"state": ImageState.DELETED}, {"media": Media.ISO}, {"activity": "expunging"}])
def test_an_image_that_cannot_be_used(host: Any, fields: dict[str, Any]) -> None:
    storage_on(host)
    with pytest.raises(Conflict):
        make(host, VolumeNeed(image=ImageFactory(**fields)))


def test_an_image_larger_than_the_storage(host: Any) -> None:
    capacity = storage_on(host, total_bytes=5 * GIB)
    need = VolumeNeed(image=ImageFactory(size_bytes=50 * GIB))
    assert "51.0" in str(placement.reason_against(host, [need]))
    with pytest.raises(Exhausted) as exhausted:
        make(host, need)
    assert exhausted.value.code == "storage_exhausted"
    assert exhausted.value.advice
    assert used(capacity) == 0


def test_the_reserve_is_never_promised(host: Any) -> None:
    storage_on(host, total_bytes=11 * GIB)
    make(host, VolumeNeed(10 * GIB))
    with pytest.raises(Exhausted):
        make(host, VolumeNeed(1))


def test_the_copy_of_the_image_needs_room_too(host: Any) -> None:
    capacity = storage_on(host, total_bytes=11 * GIB)
    with pytest.raises(Exhausted):
        make(host, VolumeNeed(10 * GIB, image=ImageFactory()))
    assert used(capacity) == 0
    assert not ImageCache.objects.exists()


def test_over_provisioning_of_one_storage(host: Any, actor: Actor) -> None:
    capacity = storage_on(host, total_bytes=11 * GIB)
    config.change(
        "primary_storage.overprovisioning",
        scope_type="primary_storage",
        scope_uuid=capacity.primary_storage_id,
        value=2.0,
        actor=actor,
    )
    make(host, VolumeNeed(20 * GIB))
    with pytest.raises(Exhausted):
        make(host, VolumeNeed(1))


def test_what_others_fill_is_not_promised(host: Any) -> None:
    capacity = storage_on(host)
    StorageCapacity.objects.update(available_bytes=3 * GIB, held_bytes=2 * GIB)
    assert str(placement.reason_against(host, [VolumeNeed(5 * GIB)]))
    assert placement.reason_against(host, [VolumeNeed(4 * GIB)]) is None
    assert used(capacity) == 0


def test_the_roomiest_storage_is_taken_and_the_next_when_it_is_full(host: Any) -> None:
    small, large = storage_on(host, total_bytes=11 * GIB), storage_on(host, total_bytes=21 * GIB)
    assert make(host, VolumeNeed(15 * GIB)).primary_storage == large.primary_storage
    assert make(host, VolumeNeed(8 * GIB)).primary_storage == small.primary_storage


def test_the_storage_that_was_asked_for(host: Any) -> None:
    small, _large = storage_on(host, total_bytes=11 * GIB), storage_on(host)
    need = VolumeNeed(GIB, primary_storage=small.primary_storage)
    assert placement.reason_against(host, [need]) is None
    assert make(host, need).primary_storage == small.primary_storage


def test_needs_are_added_up(host: Any) -> None:
    storage_on(host, total_bytes=11 * GIB)
    image = ImageFactory()
    assert placement.reason_against(host, [VolumeNeed(5 * GIB), VolumeNeed(5 * GIB)]) is None
    assert placement.reason_against(host, [VolumeNeed(5 * GIB), VolumeNeed(6 * GIB)]) is not None
    assert placement.reason_against(host, [VolumeNeed(5 * GIB, image=image), VolumeNeed(4 * GIB, image=image)]) is None
    assert placement.reason_against(host, [VolumeNeed(5 * GIB, image=image), VolumeNeed(5 * GIB)]) is not None


class TestReasons:
    def test_nothing_attached(self, host: Any) -> None:
        assert "attached" in str(placement.reason_against(host, [VolumeNeed(1)]))

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"availability": Availability.DISABLED}, "takes no new volumes"),
            ({"connection": Connection.DISCONNECTED}, "not connected"),
        ],
    )
    def test_of_the_storage(self, host: Any, changes: dict[str, Any], word: str) -> None:
        storage = storage_on(host, **changes).primary_storage
        assert word in str(placement.reason_against(host, [VolumeNeed(1, primary_storage=storage)]))
        assert placement.reason_against(host, [VolumeNeed(1)])

    def test_of_another_cluster(self, host: Any) -> None:
        storage_on(host)
        need = VolumeNeed(1, primary_storage=PrimaryStorageFactory())
        assert "not attached" in str(placement.reason_against(host, [need]))

    def test_not_reported_and_failing(self, host: Any) -> None:
        capacity = storage_on(host)
        need = VolumeNeed(1, primary_storage=capacity.primary_storage)
        StorageCapacity.objects.update(reported_at=None)
        assert "not been reported" in str(placement.reason_against(host, [need]))
        StorageCapacity.objects.update(failure="read-only file system")
        assert "read-only" in str(placement.reason_against(host, [need]))

    def test_closed(self, host: Any) -> None:
        storage_on(host)
        StorageCapacity.objects.update(is_open=False)
        with pytest.raises(Exhausted):
            make(host, VolumeNeed(1))


def test_the_source_of_a_domains_disk(host: Any) -> None:
    storage_on(host, path="/srv/primary")
    volume = make(host, VolumeNeed(GIB), device_index=3)
    found = volumes.source(volume)
    assert found.path == f"/srv/primary/volumes/{volume.pk}.qcow2"
    assert (found.format, found.size_bytes, found.device_index, found.kind) == ("qcow2", GIB, 3, "data")
    assert found.serial == volume.pk.hex[:20]


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    """Threads with connections of their own; whoever comes second waits for the row and then sees the truth."""

    def together(self, acts: list[Callable[[], Any]]) -> list[Any]:
        results: list[Any] = [None] * len(acts)
        gate = threading.Barrier(len(acts))

        def run(index: int) -> None:
            try:
                gate.wait(10)
                with transaction.atomic():
                    results[index] = acts[index]()
            except Exception as error:
                results[index] = error
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results

    def test_the_last_bytes_go_to_one(self, host: Any) -> None:
        capacity = storage_on(host, total_bytes=31 * GIB)
        found = self.together([lambda: make(host, VolumeNeed(10 * GIB)) for _ in range(8)])
        assert sum(isinstance(one, Volume) for one in found) == 3
        assert sum(isinstance(one, Exhausted) for one in found) == 5
        assert used(capacity) == 30 * GIB

    def test_the_image_is_promised_once(self, host: Any) -> None:
        capacity, image = storage_on(host), ImageFactory()
        found = self.together([lambda: make(host, VolumeNeed(2 * GIB, image=image)) for _ in range(6)])
        assert all(isinstance(one, Volume) for one in found), found
        assert ImageCache.objects.count() == 1
        assert used(capacity) == 13 * GIB

    def test_released_by_many_it_is_given_back_once(self, host: Any) -> None:
        capacity, image = storage_on(host), ImageFactory()
        volume, other = make(host, VolumeNeed(2 * GIB, image=image)), make(host, VolumeNeed(3 * GIB, image=image))
        found = self.together([lambda: volumes.release(volume.pk) for _ in range(6)])
        assert sorted(found) == [False] * 5 + [True]
        assert used(capacity) == 4 * GIB
        volumes.release(other)
        assert used(capacity) == 0

    def test_made_and_released_at_once_nothing_is_lost(self, host: Any) -> None:
        capacity, image = storage_on(host), ImageFactory()
        for _turn in range(3):
            old = make(host, VolumeNeed(2 * GIB, image=image))
            found = self.together(
                [lambda old=old: volumes.release(old), *[lambda: make(host, VolumeNeed(2 * GIB, image=image))] * 2]
            )
            assert not [one for one in found if isinstance(one, Exception)], found
            assert used(capacity) == 5 * GIB
            for volume in Volume.objects.all():
                volumes.release(volume)
            assert used(capacity) == 0
        assert Image.objects.count() == 1
