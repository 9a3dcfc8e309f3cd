"""The books of storages: their limits when settings change, what is promised, and what it is promised for."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, Sum
from django.utils.translation import ngettext

from cloud.config.registry import on_change
from storage.models import ImageCache, StorageCapacity, Volume, promises

NAMED = 5


@on_change(*promises.SETTINGS)
def _setting_changed(name: str, scope_uuid: UUID | None) -> list[Any]:
    rows = StorageCapacity.objects.all()
    if scope_uuid is not None:
        rows = rows.filter(
            Q(primary_storage=scope_uuid) | Q(host__cluster=scope_uuid) | Q(primary_storage__zone=scope_uuid)
        )
    over = promises.write_rules(rows)
    if not over:
        return []
    said = ngettext(
        "More is promised on %(count)d storage than this allows: %(names)s. It takes no more until enough is freed.",
        "More is promised on %(count)d storages than this allows: %(names)s. They take no more until enough is freed.",
        len(over),
    )
    names = [f"{row.primary_storage}@{row.host}" if row.host else str(row.primary_storage) for row in over[:NAMED]]
    return [said % {"count": len(over), "names": ", ".join(names) + (", …" if len(over) > NAMED else "")}]


@transaction.atomic
def expected(capacity: StorageCapacity) -> tuple[int, int]:
    """The bytes that the books say are promised there, and what volumes and cached images add up to.

    Exact, whatever goes on meanwhile: the books are held, and who promises writes its row with them.
    """
    held = StorageCapacity.objects.select_for_update(no_key=True).filter(pk=capacity.pk).first()
    there = {"primary_storage": capacity.primary_storage_id, "host": capacity.host_id}
    volumes = Volume.objects.filter(**there).aggregate(all=Sum("size_bytes", default=0))["all"]
    copies = ImageCache.objects.filter(**there).aggregate(all=Sum("size_bytes", default=0))["all"]
    return (held.used_bytes if held else 0), int(volumes + copies)


@transaction.atomic
def recount(capacity: StorageCapacity) -> bool:
    """Set the books right by the rows; True when they were wrong."""
    written, found = expected(capacity)
    if written == found:
        return False
    StorageCapacity.objects.filter(pk=capacity.pk).update(used_bytes=found)
    return True
