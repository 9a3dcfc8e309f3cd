"""Storages in memory: the contract's specification, for simulated hosts and for tests.

The world outlives the driver object, as files do: a dictionary a path, shared by all fakes of one process.
"""

import hashlib
import io
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import BinaryIO

from cloud.common.driver import NotFound, Rejected
from storage.drivers.base import (
    Capacity,
    ImageOrder,
    ImageStore,
    Opener,
    PrimaryStorage,
    StoredImage,
    VolumeInfo,
    Watch,
)
from storage.drivers.places import Place, canonical

TOTAL_BYTES = 1 << 40


@dataclass
class World:
    """What is on one simulated storage; sizes in bytes. `content` holds stored images' bytes."""

    total_bytes: int = TOTAL_BYTES
    images: dict[str, int] = field(default_factory=dict)
    stored: dict[str, StoredImage] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    volumes: dict[str, VolumeInfo] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    transfers: int = 0

    @property
    def held_bytes(self) -> int:
        return sum(self.images.values()) + sum(map(len, self.content.values()))


WORLDS: dict[str, World] = defaultdict(World)


class FakeStorage(PrimaryStorage):
    def __init__(self, path: str) -> None:
        self._path = str(Place(path).path)

    @property
    def world(self) -> World:
        return WORLDS[self._path]

    def prepare(self) -> None:
        WORLDS[self._path]

    def capacity(self) -> Capacity:
        return _capacity(self.world)

    def images(self) -> list[str]:
        return sorted(self.world.images)

    def cache_image(
        self, image: str, *, size_bytes: int, sha256: str, reserve_bytes: int, open_source: Opener, watch: Watch
    ) -> None:
        canonical(image)
        with self.world.lock:
            if image in self.world.images:
                return
            data = _receive(open_source, size_bytes, _capacity(self.world).available_bytes - reserve_bytes, watch)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise Rejected("checksum_mismatch", "The image server sent something else.")
            self.world.transfers += 1
            self.world.images[image] = size_bytes

    def forget_partial_image(self, image: str) -> None:
        canonical(image)

    def evict_image(self, image: str) -> bool:
        canonical(image)
        with self.world.lock:
            if any(volume.image == image for volume in self.world.volumes.values()):
                return False
            self.world.images.pop(image, None)
            return True

    def create_volume(self, uuid: str, *, size_bytes: int, image: str | None) -> None:
        with self.world.lock:
            wanted = VolumeInfo(size_bytes, "qcow2", f"{self._path}/volumes/{canonical(uuid)}.qcow2", image)
            known = self.world.volumes.get(uuid)
            if known is not None and known != wanted:
                raise Rejected("volume_exists", f"There is another volume {uuid} already.")
            if image is not None and canonical(image) not in self.world.images:
                raise NotFound("image_not_cached", f"The image {image} is not in the cache.")
            self.world.volumes[uuid] = wanted

    def delete_volume(self, uuid: str) -> None:
        self.world.volumes.pop(canonical(uuid), None)

    def volume(self, uuid: str) -> VolumeInfo | None:
        return self.world.volumes.get(canonical(uuid))

    def volumes(self) -> list[str]:
        return sorted(self.world.volumes)


class FakeImageStore(ImageStore):
    def __init__(self, path: str) -> None:
        self._path = str(Place(path).path)

    @property
    def world(self) -> World:
        return WORLDS[self._path]

    def prepare(self) -> None:
        WORLDS[self._path]

    def capacity(self) -> Capacity:
        return _capacity(self.world)

    def images(self) -> list[str]:
        return sorted(self.world.stored)

    def image(self, uuid: str) -> StoredImage | None:
        return self.world.stored.get(canonical(uuid))

    def add_image(self, uuid: str, order: ImageOrder, *, open_source: Opener, watch: Watch) -> StoredImage:
        with self.world.lock:
            if known := self.image(uuid):
                return known
            room = _capacity(self.world).available_bytes - order.reserve_bytes
            data = _receive(open_source, order.max_bytes, room, watch)
            algorithm, _colon, wanted = (order.checksum or "sha256:").partition(":")
            if wanted and hashlib.new(algorithm, data).hexdigest() != wanted.lower():
                raise Rejected("checksum_mismatch", "The file has another checksum.")
            digest = hashlib.sha256(data).hexdigest()
            form = "iso" if order.media == "iso" else "qcow2"
            kept = StoredImage(form, max(len(data), 1), len(data), digest, digest, order.format or form)
            self.world.stored[uuid], self.world.content[uuid] = kept, data
            return kept

    def delete_image(self, uuid: str) -> None:
        self.world.stored.pop(canonical(uuid), None)
        self.world.content.pop(uuid, None)

    def open_image(self, uuid: str) -> BinaryIO:
        if canonical(uuid) not in self.world.content:
            raise NotFound("image_absent", f"The image {uuid} is not on this server.")
        return io.BytesIO(self.world.content[uuid])


def _capacity(world: World) -> Capacity:
    return Capacity(world.total_bytes, world.total_bytes - world.held_bytes, world.held_bytes)


def _receive(open_source: Opener, max_bytes: int, room_bytes: int, watch: Watch) -> bytes:
    data = bytearray()
    with open_source() as body:
        for chunk in body.chunks():
            watch.check_aborted()
            data += chunk
            if len(data) > max_bytes:
                raise Rejected("image_too_large", f"The image has more than {max_bytes} bytes.")
            if len(data) > room_bytes:
                raise Rejected("storage_full", "The image does not fit.")
            watch.progress(len(data), body.size_bytes or 0)
    return bytes(data)
