"""Which clusters use a primary storage: taken up, closed for new volumes, given up. All in the caller's transaction."""

from collections.abc import Iterable
from typing import Any

from cloud.infra.models import Agent, Host
from cloud.infra.services import desired
from storage.models import copies
from storage.models.primary import PrimaryStorage, PrimaryStorageAttachment, StorageCapacity
from storage.models.volume import CacheState, ImageCache, Volume


def add(storage: PrimaryStorage, clusters: Iterable[Any]) -> None:
    """Attach clusters (rows); their hosts hear of the storage on commit."""
    rows = list(clusters)
    PrimaryStorageAttachment.objects.bulk_create(
        [PrimaryStorageAttachment(primary_storage=storage, cluster=cluster) for cluster in rows], ignore_conflicts=True
    )
    _touch([cluster.pk for cluster in rows])


def close(storage: PrimaryStorage, clusters: Iterable[Any]) -> int:
    """Promise nothing more on the hosts of these clusters (keys); the number of volumes that are there."""
    keys = list(clusters)
    StorageCapacity.objects.filter(primary_storage=storage, host__cluster__in=keys).update(is_open=False)
    # Only now, with the rows locked, is the count final: whoever promised bytes before has committed.
    return Volume.objects.filter(primary_storage=storage, host__cluster__in=keys).count()


def reopen(storage: PrimaryStorage, clusters: Iterable[Any]) -> None:
    """Take `close` back."""
    StorageCapacity.objects.filter(primary_storage=storage, host__cluster__in=list(clusters)).update(is_open=True)


def evict(storage: PrimaryStorage, clusters: Iterable[Any]) -> None:
    """Have the hosts of these clusters (keys) remove the images that they keep on the storage."""
    copies.evict(ImageCache.objects.filter(primary_storage=storage, host__cluster__in=list(clusters)))


def remove(storage: PrimaryStorage, clusters: Iterable[Any]) -> None:
    """Detach clusters (keys), with what is known of the storage on their hosts; absent is fine."""
    keys = list(clusters)
    hosts = Host.objects.filter(cluster__in=keys)
    ImageCache.objects.filter(primary_storage=storage, host__in=hosts).exclude(state=CacheState.PENDING).delete()
    StorageCapacity.objects.filter(primary_storage=storage, host__in=hosts).delete()
    PrimaryStorageAttachment.objects.filter(primary_storage=storage, cluster__in=keys).delete()
    _touch(keys)


def _touch(clusters: list[Any]) -> None:
    desired.touch_all(Agent.objects.filter(host__cluster__in=clusters), copies.SECTION)
