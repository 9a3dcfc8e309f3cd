"""Bytes of primary storages, promised and given back by conditional updates: never read, then written.

Rules about rows, below the workflows that need them as much as the services do. Whoever also locks cached images takes
the capacity rows first; whoever takes several of them does so in the order of their uuids.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest, Now

from cloud.common import locks
from cloud.common.wire import Document
from cloud.config import services as config
from cloud.infra.models import Host
from storage.messages import StorageReport
from storage.models.primary import CHANGING, PrimaryStorage, StorageCapacity

SETTINGS = ("primary_storage.overprovisioning", "primary_storage.reserved_capacity")
_LOCK = "storage.limits"


def take(capacity: StorageCapacity, size_bytes: int) -> bool:
    """Promise this much in the caller's transaction. False, and nothing changed, when it does not fit."""
    return take_all({capacity.pk: size_bytes})


def take_all(wanted: Mapping[UUID, int]) -> bool:
    """Promise so many bytes of each of these (by the capacities' keys), in the caller's transaction, who rolls back
    when it is False: then not all of them had room."""
    if len(wanted) > 1:
        list(StorageCapacity.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk"))
    room, used = Q(), []
    for key, size_bytes in wanted.items():
        room |= Q(pk=key, limit_bytes__gte=F("used_bytes") + size_bytes)
        used.append(When(pk=key, then=F("used_bytes") + size_bytes))
    taken = StorageCapacity.objects.filter(room, is_open=True).update(used_bytes=Case(*used))
    return taken == len(wanted)


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
    locks.share(_LOCK)  # no setting changes between our look at it and our commit
    rules = _rules(config.stored(*SETTINGS), held.pk, host.cluster_id if host else None, held.zone_id)
    new = StorageCapacity(primary_storage=held, host=host, is_open=held.activity not in CHANGING, **rules)
    StorageCapacity.objects.bulk_create([new], ignore_conflicts=True)


@transaction.atomic
def write_rules(capacities: Any) -> list[StorageCapacity]:
    """Write down the settings that hold for these capacities (rows); returns those on which more is promised than they
    allow: nothing more is promised there until enough is given back."""
    locks.hold(_LOCK)
    rows = capacities.select_for_update(of=("self",), no_key=True).order_by("pk")
    places = list(rows.values_list("pk", "primary_storage", "host__cluster", "primary_storage__zone"))
    read = config.stored(*SETTINGS)
    alike: dict[tuple[tuple[str, Any], ...], list[UUID]] = defaultdict(list)
    for key, *scopes in places:
        alike[tuple(_rules(read, *scopes).items())].append(key)
    for rules, keys in alike.items():
        StorageCapacity.objects.filter(pk__in=keys).update(**dict(rules))
    over = capacities.filter(used_bytes__gt=F("limit_bytes"))
    return list(over.select_related("primary_storage", "host"))


def _rules(read: Any, *scopes: UUID | None) -> dict[str, Any]:
    ratio, reserved_bytes = (read(name, *(scope for scope in scopes if scope is not None)) for name in SETTINGS)
    return {"ratio": ratio, "reserved_bytes": reserved_bytes}
