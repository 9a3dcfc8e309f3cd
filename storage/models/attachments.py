"""Which clusters use a primary storage: taken up, closed for new volumes, given up. All in the caller's transaction.

Hosts that first report the storage while a job changes its clusters are closed for new volumes; the job's end calls
`settle`, which opens them.
"""

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict
from cloud.common.text import filled
from cloud.infra.models import Agent, Cluster, Host
from cloud.infra.services import desired
from storage.models import copies
from storage.models.primary import PrimaryStorage, PrimaryStorageAttachment, StorageCapacity
from storage.models.volume import ImageCache, Volume


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


def settle(storage: PrimaryStorage) -> None:
    """The clusters are what they will be: their hosts take volumes, and keep images that were to leave with them."""
    clusters = list(storage.attachments.values_list("cluster", flat=True))
    StorageCapacity.objects.filter(primary_storage=storage, host__cluster__in=clusters).update(is_open=True)
    copies.keep(ImageCache.objects.filter(primary_storage=storage, host__cluster__in=clusters))


def in_use(storage: PrimaryStorage, volumes: int) -> Conflict:
    """Why the storage cannot be taken from hosts: so many volumes of theirs are on it."""
    return Conflict(
        filled(_("%(count)d volumes are on %(storage)s."), count=volumes, storage=str(storage)),
        code="in_use",
        advice=_("Expunge or move them first; those of instances in the recycle bin count too."),
        used_by=[{"kind": "volume", "count": volumes}],
    )


def evict(storage: PrimaryStorage, clusters: Iterable[Any]) -> None:
    """Have the hosts of these clusters (keys) remove the images that they keep on the storage."""
    copies.evict(ImageCache.objects.filter(primary_storage=storage, host__cluster__in=list(clusters)))


def remove(storage: PrimaryStorage, clusters: Iterable[Any]) -> int:
    """Detach clusters (keys), with what is known of the storage on their hosts; absent is fine.

    A cluster with volumes of its hosts on the storage stays attached; the number of those volumes.
    """
    keys = list(clusters)
    # Held, so that no host's first report comes in between.
    list(PrimaryStorage.objects.select_for_update(of=("self",), no_key=True).filter(pk=storage.pk))
    standing = 0
    if close(storage, keys):
        volumes = Volume.objects.filter(primary_storage=storage, host__cluster__in=keys)
        standing = volumes.count()
        keys = list(
            Cluster.objects.filter(pk__in=keys).exclude(hosts__volumes__in=volumes).values_list("pk", flat=True)
        )
    hosts = Host.objects.filter(cluster__in=keys)
    ImageCache.objects.filter(primary_storage=storage, host__in=hosts).delete()
    StorageCapacity.objects.filter(primary_storage=storage, host__in=hosts).delete()
    PrimaryStorageAttachment.objects.filter(primary_storage=storage, cluster__in=keys).delete()
    _touch(keys)
    return standing


def _touch(clusters: list[Any]) -> None:
    desired.touch_all(Agent.objects.filter(host__cluster__in=clusters), copies.SECTION)
