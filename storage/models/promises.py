"""Bytes of primary storages, promised and given back by conditional updates: never read, then written.

Rules about rows, below the workflows that need them as much as the services do. Whoever also locks cached images takes
the capacity row first.
"""

from typing import Any

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest, Now

from cloud.common.wire import Document
from cloud.config.services import value
from cloud.infra.models import Cluster, Host
from storage.messages import StorageReport
from storage.models.primary import CHANGING, PrimaryStorage, StorageCapacity


def scopes(storage: PrimaryStorage, cluster: Cluster | None) -> tuple[Any, ...]:
    return (storage, cluster, storage.zone)


def limit_bytes(capacity: StorageCapacity, cluster: Cluster | None) -> int:
    """What may be promised in all: what is free and what the storage's own files take, less the reserve, times the
    over-provisioning ratio. What other files take on the same file system is not ours to promise."""
    where = scopes(capacity.primary_storage, cluster)
    usable = capacity.available_bytes + capacity.held_bytes - value("primary_storage.reserved_capacity", *where)
    return int(max(0, usable) * value("primary_storage.overprovisioning", *where))


def room_bytes(capacity: StorageCapacity, cluster: Cluster | None) -> int:
    """What is left to promise, at least 0."""
    return max(0, limit_bytes(capacity, cluster) - capacity.used_bytes)


def take(capacity: StorageCapacity, size_bytes: int, *, cluster: Cluster | None) -> bool:
    """Promise this much in the caller's transaction. False, and nothing changed, when it does not fit."""
    most = limit_bytes(capacity, cluster)
    return bool(
        StorageCapacity.objects.filter(pk=capacity.pk, is_open=True, used_bytes__lte=most - size_bytes).update(
            used_bytes=F("used_bytes") + size_bytes
        )
    )


def give_back(storage: PrimaryStorage | Any, host: Host | Any, size_bytes: int) -> None:
    """Take a promise back in the caller's transaction. Storage and host may be keys. The caller does this once."""
    StorageCapacity.objects.filter(primary_storage=storage, host=host).update(
        used_bytes=Greatest(F("used_bytes") - size_bytes, Value(0))
    )


def note(storage: PrimaryStorage, host: Host | None, report: StorageReport) -> None:
    """Write down what an agent saw of a storage."""
    seen: Document = {"failure": report.failure, "reported_at": Now()}
    if not report.failure:
        seen |= {
            "total_bytes": report.total_bytes,
            "available_bytes": report.available_bytes,
            "held_bytes": report.held_bytes,
        }
    rows = StorageCapacity.objects.filter(primary_storage=storage, host=host)
    if not rows.update(**seen):
        _begin(storage, host)
        rows.update(**seen)


@transaction.atomic
def _begin(storage: PrimaryStorage, host: Host | None) -> None:
    """Keep books of a storage on a host; closed while a job changes the storage's clusters, whose end opens them."""
    # Held, so that no such job begins or ends unseen.
    held = PrimaryStorage.objects.select_for_update(of=("self",), no_key=True).filter(pk=storage.pk).first()
    if held is None or (host is not None and not held.attachments.filter(cluster=host.cluster_id).exists()):
        return
    new = StorageCapacity(primary_storage=held, host=host, is_open=held.activity not in CHANGING)
    StorageCapacity.objects.bulk_create([new], ignore_conflicts=True)
