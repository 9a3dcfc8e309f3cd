"""Storages in memory: the contract's specification, for simulated hosts and for tests.

The world outlives the driver object, as files do: a dictionary a path, shared by all fakes of one process.
"""

import hashlib
import io
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from cloud.common.driver import NotFound, Rejected
from cloud.common.faults import Faults
from storage.drivers.base import (
    AsideThing,
    Capacity,
    FoundThing,
    ImageOrder,
    ImageStore,
    Opener,
    PrimaryStorage,
    Quarantining,
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
    strangers: dict[str, int] = field(default_factory=dict)
    aside: dict[str, tuple[AsideThing, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    transfers: int = 0

    def __getstate__(self) -> dict[str, object]:
        with self.lock:
            return {name: copy(value) for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, lock=threading.RLock())

    @property
    def held_bytes(self) -> int:
        return sum(self.images.values()) + sum(map(len, self.content.values()))


WORLDS: dict[str, World] = defaultdict(World)


class _Aside(Quarantining):
    """What both fakes do for the doctor. `_take` and `_give` move a thing out of the world and into it again."""

    _path: str

    @property
    def world(self) -> World:
        raise NotImplementedError

    def aside(self) -> list[AsideThing]:
        return [thing for thing, _content in self.world.aside.values()]

    def set_aside(self, id: str, kind: str, name: str) -> None:
        with self.world.lock:
            if canonical(id) in self.world.aside:
                return
            found = next((each for each in self.found() if (each.kind, each.name) == (kind, name)), None)
            if found is None:
                raise NotFound("nothing_there", f"{name} is not there (any more).")
            thing = AsideThing(id, kind, name, found.held_bytes, time.time())
            self.world.aside[id] = (thing, self._take(kind, name))

    def put_back(self, id: str) -> None:
        with self.world.lock:
            if canonical(id) not in self.world.aside:
                raise NotFound("not_in_quarantine", f"The quarantine of {self._path} holds nothing as {id}.")
            thing, content = self.world.aside[id]
            if any((each.kind, each.name) == (thing.kind, thing.name) for each in self.found()):
                raise Rejected("place_taken", f"There is another {thing.name} now.")
            self._give(thing.kind, thing.name, content)
            del self.world.aside[id]

    def purge(self, id: str) -> None:
        self.world.aside.pop(canonical(id), None)

    def _take(self, kind: str, name: str) -> Any:
        raise NotImplementedError

    def _give(self, kind: str, name: str, content: Any) -> None:
        raise NotImplementedError


class FakeStorage(_Aside, PrimaryStorage):
    def __init__(self, path: str, worlds: dict[str, World] = WORLDS, faults: Faults | None = None) -> None:
        self._path, self._worlds, self._faults = str(Place(path).path), worlds, faults or Faults()

    @property
    def world(self) -> World:
        return self._worlds[self._path]

    def prepare(self) -> None:
        self._worlds[self._path]

    def capacity(self) -> Capacity:
        return _capacity(self.world)

    def images(self) -> list[str]:
        return sorted(self.world.images)

    def cache_image(
        self, image: str, *, size_bytes: int, sha256: str, reserve_bytes: int, open_source: Opener, watch: Watch
    ) -> None:
        canonical(image)
        self._faults.strike("caching an image")
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
            if self._is_stood_on(image):
                return False
            self.world.images.pop(image, None)
            return True

    def create_volume(self, uuid: str, *, size_bytes: int, image: str | None) -> None:
        self._faults.strike("creating a volume")
        with self.world.lock:
            wanted = VolumeInfo(size_bytes, "qcow2", f"{self._path}/volumes/{canonical(uuid)}.qcow2", image)
            known = self.world.volumes.get(uuid)
            if known is not None and known != wanted:
                raise Rejected("volume_exists", f"There is another volume {uuid} already.")
            if image is not None and canonical(image) not in self.world.images:
                raise NotFound("image_not_cached", f"The image {image} is not in the cache.")
            self.world.volumes[uuid] = wanted

    def delete_volume(self, uuid: str) -> None:
        self._faults.strike("deleting a volume")
        self.world.volumes.pop(canonical(uuid), None)

    def volume(self, uuid: str) -> VolumeInfo | None:
        return self.world.volumes.get(canonical(uuid))

    def volumes(self) -> list[str]:
        return sorted(self.world.volumes)

    def found(self) -> list[FoundThing]:
        world = self.world
        return [
            *(FoundThing("stranger", name, held) for name, held in world.strangers.items()),
            *(FoundThing("volume", name, 0, each.size_bytes, each.image) for name, each in world.volumes.items()),
            *(FoundThing("image", name, held, held) for name, held in world.images.items()),
        ]

    def _take(self, kind: str, name: str) -> Any:
        world = self.world
        if kind == "image" and self._is_stood_on(name):
            raise Rejected("in_use", f"A volume stands on the image {name}.")
        kinds: dict[str, dict[str, Any]] = {"volume": world.volumes, "image": world.images, "stranger": world.strangers}
        return kinds[kind].pop(name)

    def _give(self, kind: str, name: str, content: Any) -> None:
        world = self.world
        kinds: dict[str, dict[str, Any]] = {"volume": world.volumes, "image": world.images, "stranger": world.strangers}
        kinds[kind][name] = content

    def _is_stood_on(self, image: str) -> bool:
        kept = [content for _thing, content in self.world.aside.values() if isinstance(content, VolumeInfo)]
        return any(volume.image == image for volume in [*self.world.volumes.values(), *kept])


class FakeImageStore(_Aside, ImageStore):
    def __init__(self, path: str, worlds: dict[str, World] = WORLDS, faults: Faults | None = None) -> None:
        self._path, self._worlds, self._faults = str(Place(path).path), worlds, faults or Faults()

    @property
    def world(self) -> World:
        return self._worlds[self._path]

    def prepare(self) -> None:
        self._worlds[self._path]

    def capacity(self) -> Capacity:
        return _capacity(self.world)

    def images(self) -> list[str]:
        return sorted(self.world.stored)

    def image(self, uuid: str) -> StoredImage | None:
        return self.world.stored.get(canonical(uuid))

    def add_image(self, uuid: str, order: ImageOrder, *, open_source: Opener, watch: Watch) -> StoredImage:
        self._faults.strike("adding an image")
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
        self._faults.strike("deleting an image")
        self.world.stored.pop(canonical(uuid), None)
        self.world.content.pop(uuid, None)

    def open_image(self, uuid: str) -> BinaryIO:
        if canonical(uuid) not in self.world.content:
            raise NotFound("image_absent", f"The image {uuid} is not on this server.")
        return io.BytesIO(self.world.content[uuid])

    def found(self) -> list[FoundThing]:
        world = self.world
        return [
            *(FoundThing("stranger", name, held) for name, held in world.strangers.items()),
            *(FoundThing("image", name, len(world.content[name]), len(world.content[name])) for name in world.stored),
        ]

    def _take(self, kind: str, name: str) -> Any:
        if kind == "image":
            return self.world.stored.pop(name), self.world.content.pop(name)
        return self.world.strangers.pop(name)

    def _give(self, kind: str, name: str, content: Any) -> None:
        if kind == "image":
            self.world.stored[name], self.world.content[name] = content
        else:
            self.world.strangers[name] = content


@dataclass
class Invented:
    """Bytes made up for a URL, the same each time: what image servers of the simulator fetch."""

    url: str
    size_bytes: int | None = 4096

    def chunks(self) -> Iterator[bytes]:
        yield hashlib.shake_256(self.url.encode()).digest(4096)


@contextmanager
def invented(url: str, guard: object, watch: Watch) -> Iterator[Invented]:
    """As `storage.drivers.web.fetch`, of a web that has everything."""
    yield Invented(url)


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
