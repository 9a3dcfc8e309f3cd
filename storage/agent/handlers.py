"""What a machine does about storage when control asks: message → driver → message."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from cloud.agent.registry import Call, Machine, command, section
from cloud.common.driver import DriverError, Rejected
from cloud.common.wire import Document
from storage.agent import places
from storage.agent.pull import pulled
from storage.drivers.base import ImageOrder
from storage.drivers.fake import invented
from storage.drivers.guard import Guard
from storage.drivers.web import fetch
from storage.messages import (
    CachedImage,
    CachedImages,
    CacheImages,
    CapacityReport,
    CreateVolumes,
    DeleteImage,
    DeleteVolumes,
    DownloadImage,
    ForgetPartialImages,
    ImageReport,
    StoragePlace,
    StorageReport,
)

CAPACITY = "storage.capacity"
# What nothing has happened to is told anew after so long, should the last word have been lost.
TELL_AGAIN_S = 240.0
_TOLD = "storage.told"


@command(DownloadImage, bulk=True)
def download_image(message: DownloadImage, call: Call) -> ImageReport:
    store = places.image_store(call.machine, message.storage)
    order = ImageOrder(message.media, message.format, message.checksum, message.max_bytes, message.reserve_bytes)
    fetched = fetch if call.machine.disk is None else invented
    source = partial(fetched, message.url, Guard(message.refused), call)
    kept = store.add_image(message.image, order, open_source=source, watch=call)
    return ImageReport(image=message.image, **vars(kept))


@command(DeleteImage, bulk=True)
def delete_image(message: DeleteImage, call: Call) -> None:
    places.image_store(call.machine, message.storage).delete_image(message.image)


@command(CacheImages, bulk=True)
def cache_images(message: CacheImages, call: Call) -> CachedImages:
    for origin in message.images:
        places.primary(call.machine, origin.storage).cache_image(
            origin.image,
            size_bytes=origin.actual_size_bytes,
            sha256=origin.content_sha256,
            reserve_bytes=message.reserve_bytes,
            open_source=partial(pulled, call.machine, origin),
            watch=call,
        )
    return CachedImages([CachedImage(one.image, one.storage.uuid, one.actual_size_bytes) for one in message.images])


@command(ForgetPartialImages, bulk=True)
def forget_partial_images(message: ForgetPartialImages, call: Call) -> None:
    for part in message.images:
        places.primary(call.machine, part.storage).forget_partial_image(part.image)


@command(CreateVolumes)
def create_volumes(message: CreateVolumes, call: Call) -> None:
    for volume in message.volumes:
        storage = places.primary(call.machine, volume.storage)
        storage.create_volume(volume.uuid, size_bytes=volume.size_bytes, image=volume.image)


@command(DeleteVolumes)
def delete_volumes(message: DeleteVolumes, call: Call) -> None:
    for volume in message.volumes:
        places.primary(call.machine, volume.storage).delete_volume(volume.uuid)


@section("storages")
def converge(body: Document, machine: Machine) -> None:
    """Make each storage's directories, let images go, tell capacities; one that fails does not stop the others.

    An image that cannot go fails the section, not its storage.
    """
    reports: list[StorageReport] = []
    failures: list[DriverError] = []
    paths: set[Path] = machine.resources.setdefault("platform_paths", set())
    for wanted in body.get("storages", []):
        try:
            report, standing = _converge_one(wanted, machine)
            reports.append(report)
            paths.add(Path(wanted["path"]))
            if standing:
                detail = f"Volumes stand on images that should leave: {', '.join(standing)}."
                failures.append(Rejected("image_in_use", detail))
        except DriverError as error:
            failures.append(error)
            reports.append(StorageReport(wanted["uuid"], failure=error.detail))
    _tell(machine, body, CapacityReport(reports).to_document())
    if failures:
        raise failures[0]


def _tell(machine: Machine, wanted: Document, report: Document) -> None:
    """Tell what was found, unless a pass in between two changes finds what the last one did: then now and then."""
    before = machine.resources.get(_TOLD)
    now = time.monotonic()
    if before is not None and before[:2] == (wanted, report) and now - before[2] < TELL_AGAIN_S:
        return
    machine.resources[_TOLD] = (wanted, report, now)
    machine.publish(CAPACITY, report)


def _converge_one(wanted: dict[str, Any], machine: Machine) -> tuple[StorageReport, list[str]]:
    """What control should know of the storage, and the images that cannot leave it."""
    place = StoragePlace(wanted["uuid"], wanted["kind"], wanted["path"])
    if place.kind in places.IMAGE_KINDS:
        store = places.image_store(machine, place)
        store.prepare()
        return StorageReport(place.uuid, **vars(store.capacity())), []
    storage = places.primary(machine, place)
    storage.prepare()
    standing = [image for image in wanted.get("evict", []) if not storage.evict_image(image)]
    return StorageReport(place.uuid, **vars(storage.capacity()), cached=storage.images()), standing
