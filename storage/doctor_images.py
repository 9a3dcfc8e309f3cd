"""What the doctor looks for in images and in their copies near the hosts."""

import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Look, check
from cloud.infra.models import Host
from storage.doctor import QUARANTINE, Seen, storages
from storage.drivers.base import FoundThing
from storage.messages import THING_KEEPER
from storage.models import CacheState, Image, ImageCache, ImageState, StorageCapacity, Volume, promises

MISSING = gettext_noop("Its file is missing on the image server.")


# images


@check(
    "image_leak",
    "leak",
    label=_("An image's file that no image is known for"),
    mend=QUARANTINE,
    keeper=THING_KEEPER,
    still=lambda finding: not Image.objects.filter(pk=finding.resource_uuid).exists(),
)
def image_leak(look: Look) -> Iterator[Finding]:
    known = {str(key) for key in Image.objects.values_list("pk", flat=True)}
    for seen in storages(look, is_image_server=True):
        for thing in seen.of_kind("image"):
            if thing.name not in known and not look.is_busy(thing.name):
                yield seen.leak("image_leak", "image", thing, _("No image of this uuid is known."))


def _break(finding: Finding, actor: Actor) -> None:
    rows = Image.objects.filter(pk=finding.resource_uuid, state=ImageState.READY, activity="")
    rows.update(state=ImageState.ERROR, state_reason=MISSING)


@check(
    "image_missing",
    "missing",
    label=_("An image without its file"),
    mend=_("mark the image as broken"),
    fix=_break,
)
def image_missing(look: Look) -> Iterator[Finding]:
    for seen in storages(look, is_image_server=True):
        files = {thing.name for thing in seen.of_kind("image")}
        for row in Image.objects.filter(backup_storage_id=UUID(seen.uuid), state=ImageState.READY, activity=""):
            if str(row.pk) not in files and not look.is_busy(row.pk):
                detail = _("Its file is not on its image server.")
                yield Finding(
                    "image_missing",
                    "image",
                    str(row.pk),
                    row.name,
                    detail,
                    agent=seen.report.agent,
                    host=seen.report.name,
                )


# copies


class _Copies:
    """Copies of images by (storage, agent of the host), and what is known of the images."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, ImageCache]] = {}
        for row in ImageCache.objects.filter(host__agent__isnull=False).select_related("host"):
            key = (str(row.primary_storage_id), str(row.host.agent_id if row.host else ""))
            self.rows.setdefault(key, {})[str(row.image_uuid)] = row
        self.sizes = {str(key): size for key, size in Image.objects.values_list("pk", "actual_size_bytes")}

    def of(self, seen: Seen) -> dict[str, ImageCache]:
        return self.rows.get((seen.uuid, seen.report.agent), {})

    def is_wanted(self, seen: Seen, thing: FoundThing) -> bool:
        """Whether the copy can be used: its image is as large, or a volume stands on it."""
        return self.sizes.get(thing.name) == thing.size_bytes or any(
            volume.image == thing.name for volume in seen.of_kind("volume")
        )


def _unbooked(look: Look, *, is_wanted: bool) -> Iterator[tuple[Seen, FoundThing]]:
    copies = _Copies()
    for seen in storages(look, is_image_server=False):
        if (seen.report.agent, "storages") in look.settling:
            continue
        for thing in seen.of_kind("image"):
            if thing.name not in copies.of(seen) and copies.is_wanted(seen, thing) == is_wanted:
                yield seen, thing


def _is_unknown(finding: Finding) -> bool:
    rows = ImageCache.objects.filter(image_uuid=finding.resource_uuid, host__agent=UUID(finding.agent))
    return not rows.filter(primary_storage=finding.thing["place"]["uuid"]).exists()


@check(
    "copy_leak",
    "leak",
    label=_("A cached image that is of no use"),
    mend=QUARANTINE,
    keeper=THING_KEEPER,
    still=_is_unknown,
)
def copy_leak(look: Look) -> Iterator[Finding]:
    for seen, thing in _unbooked(look, is_wanted=False):
        yield seen.leak("copy_leak", "image", thing, _("No image is known that it could be a copy of."))


def _book(finding: Finding, actor: Actor) -> None:
    """Write the copy down, and promise its bytes: they are taken already."""
    host = Host.objects.filter(agent=UUID(finding.agent)).first()
    storage = finding.thing["place"]["uuid"]
    held = StorageCapacity.objects.select_for_update().filter(primary_storage=storage, host=host).first()
    if held is None or host is None or not _is_unknown(finding):
        return
    image = Image.objects.filter(pk=finding.resource_uuid).first()
    size = finding.thing["size_bytes"]
    ImageCache.objects.create(
        uuid=uuid.uuid4(),
        image=image,
        image_uuid=UUID(finding.resource_uuid),
        primary_storage=held.primary_storage,
        host=host,
        size_bytes=size,
        state=CacheState.READY,
    )
    StorageCapacity.objects.filter(pk=held.pk).update(used_bytes=F("used_bytes") + size)


@check(
    "copy_unbooked",
    "drift",
    label=_("A cached image that nobody has booked"),
    mend=_("write it down as what it is"),
    fix=_book,
)
def copy_unbooked(look: Look) -> Iterator[Finding]:
    for seen, thing in _unbooked(look, is_wanted=True):
        yield seen.leak("copy_unbooked", "image", thing, _("It is a copy of an image, and is not in the books."))


def _drop(finding: Finding, actor: Actor) -> None:
    """Under the storage's lock: an idle copy is forgotten, one that volumes stand on is fetched again for the next."""
    row = ImageCache.objects.filter(pk=finding.thing["copy"]).first()
    if row is None:
        return
    list(StorageCapacity.objects.select_for_update().filter(primary_storage=row.primary_storage_id, host=row.host_id))
    found = ImageCache.objects.select_for_update().filter(pk=row.pk).first()
    if found is None:
        return
    if Volume.objects.filter(cache=found).exists():
        ImageCache.objects.filter(pk=found.pk, state=CacheState.READY).update(state=CacheState.PENDING)
    else:
        found.delete()
        promises.give_back(found.primary_storage_id, found.host_id, found.size_bytes)


def _copy(kind: str, row: ImageCache, detail: Any, **more: Any) -> Finding:
    return Finding(
        kind,
        "image",
        str(row.image_uuid),
        f"{row.image_uuid} @ {row.host}",
        detail,
        since=row.created_at,
        thing={"copy": str(row.pk)},
        **more,
    )


@check(
    "copy_missing",
    "missing",
    label=_("A cached image that is not there"),
    mend=_("forget it, or have it fetched again where volumes stand on it"),
    fix=_drop,
)
def copy_missing(look: Look) -> Iterator[Finding]:
    copies = _Copies()
    busy = _busy_copies(look)
    for seen in storages(look, is_image_server=False):
        files = {thing.name for thing in seen.of_kind("image")}
        for name, row in copies.of(seen).items():
            if row.state == CacheState.READY and name not in files and row.pk not in busy:
                detail = _("The host does not have it.")
                yield _copy("copy_missing", row, detail, agent=seen.report.agent, host=seen.report.name)


def _busy_copies(look: Look) -> set[UUID]:
    """Copies under volumes that jobs are at work on."""
    rows = Volume.objects.exclude(cache=None).values_list("cache_id", "pk", "instance_uuid")
    return {cache for cache, volume, instance in rows if look.is_busy(volume, instance)}


@check(
    "copy_orphan",
    "leak",
    label=_("A cached image where the storage is not in use"),
    mend=_("forget it"),
    fix=_drop,
)
def copy_orphan(look: Look) -> Iterator[Finding]:
    """Of hosts that no longer keep books of the storage: nobody would ever hear of it again."""
    books = StorageCapacity.objects.filter(primary_storage=OuterRef("primary_storage"), host=OuterRef("host"))
    rows = ImageCache.objects.filter(~Exists(books), volumes__isnull=True).select_related("host")
    for row in rows:
        if not look.is_busy(row.primary_storage_id, row.image_uuid):
            yield _copy("copy_orphan", row, _("Its host does not use the storage any more."), host=str(row.host or ""))
