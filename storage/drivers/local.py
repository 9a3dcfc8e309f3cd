"""Local primary storage: qcow2 files in a directory of the host.

`<path>/volumes/<uuid>.qcow2`   volumes; a root volume is an overlay on a cached image
`<path>/cache/<uuid>.qcow2`     images, there whole or not at all; `.part` while arriving, `.lock` held by who fetches
`<path>/trash/`                 volumes on their way out
`<path>/quarantine/`            what the doctor took out of the way (`drivers.quarantine`)
"""

import os
import stat
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

from cloud.common.driver import NotFound, Rejected
from storage.drivers import formats, qemu_img, transfer
from storage.drivers.base import AsideThing, Capacity, FoundThing, Opener, PrimaryStorage, VolumeInfo, Watch
from storage.drivers.places import Place, canonical, is_canonical, settle, sync_directory, translate
from storage.drivers.quarantine import FOLDER as QUARANTINE
from storage.drivers.quarantine import Quarantine

VOLUMES, CACHE, TRASH = "volumes", "cache", "trash"
SUFFIX = ".qcow2"


class LocalStorage(PrimaryStorage):
    """The local storage at `path`; any number of these may be used at once on one directory."""

    def __init__(self, path: str) -> None:
        self._place = Place(path)
        self._quarantine = Quarantine(self._place)

    def prepare(self) -> None:
        for folder in (VOLUMES, CACHE, TRASH):
            self._place.make(folder)
        try:
            for left in self._place.inside(TRASH).iterdir():
                left.unlink(missing_ok=True)
        except OSError as error:
            raise translate(error) from error
        for part in self._place.inside(CACHE).glob(f"*{SUFFIX}.part"):
            if is_canonical(name := part.name.removesuffix(f"{SUFFIX}.part")):
                self.forget_partial_image(name)

    def capacity(self) -> Capacity:
        try:
            found = os.statvfs(self._place.path)
            held = self._place.used_bytes(without=QUARANTINE)
        except OSError as error:
            raise translate(error) from error
        return Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, held)

    def images(self) -> list[str]:
        return self._named(CACHE)

    def cache_image(
        self, image: str, *, size_bytes: int, sha256: str, reserve_bytes: int, open_source: Opener, watch: Watch
    ) -> None:
        final, part, lock = self._cache(image)
        self._place.make(CACHE)
        with transfer.held(lock, watch, part, size_bytes):
            if final.exists():
                return
            received = transfer.receive(
                open_source, part, max_bytes=size_bytes, reserve_bytes=reserve_bytes, watch=watch, text="caching"
            )
            if received.digests["sha256"] != sha256:
                part.unlink()
                raise Rejected("checksum_mismatch", f"The image arrived with another sha256 than {sha256}.")
            part.chmod(0o444)
            settle(part, final)

    def forget_partial_image(self, image: str) -> None:
        final, part, lock = self._cache(image)
        if not lock.parent.is_dir():
            return
        with transfer.held_now(lock) as is_ours:
            if is_ours:
                part.unlink(missing_ok=True)
                if not final.exists():
                    lock.unlink(missing_ok=True)

    def evict_image(self, image: str) -> bool:
        final, part, lock = self._cache(image)
        if not lock.parent.is_dir():
            return True
        with transfer.held_now(lock) as is_ours:
            if not is_ours or self._is_stood_on(final):
                return False
            for file in (part, final, lock):
                file.unlink(missing_ok=True)
            return True

    def create_volume(self, uuid: str, *, size_bytes: int, image: str | None) -> None:
        final = self._volume(uuid)
        part = final.with_name(final.name + ".part")
        backing = self._cache(image)[0] if image else None
        self._place.make(VOLUMES)
        if found := self.volume(uuid):
            if (found.size_bytes, found.image) != (size_bytes, image):
                raise Rejected("volume_exists", f"There is another volume {uuid} already.")
            return
        if backing is not None:
            if not backing.exists():
                raise NotFound("image_not_cached", f"The image {image} is not in the cache.")
            if (needed := qemu_img.info(backing, "qcow2").size_bytes) > size_bytes:
                raise Rejected("volume_too_small", f"The image needs {needed} bytes, the volume has {size_bytes}.")
        try:
            qemu_img.create(part, size_bytes, backing)
            settle(part, final)
        finally:
            part.unlink(missing_ok=True)

    def delete_volume(self, uuid: str) -> None:
        """Renamed away first: from then on it is gone for everybody, however long the unlinking takes."""
        final = self._volume(uuid)
        if not final.parent.is_dir():
            return
        gone = self._place.make(TRASH) / f"{uuid}.{uuids.uuid4().hex}"
        try:
            final.with_name(final.name + ".part").unlink(missing_ok=True)
            os.rename(final, gone)
            sync_directory(final.parent)
            gone.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate(error) from error

    def volume(self, uuid: str) -> VolumeInfo | None:
        path = self._volume(uuid)
        if not path.exists():
            return None
        found = qemu_img.info(path, "qcow2")
        name = formats.backing_name(path)
        image = Path(name).name.removesuffix(SUFFIX) if name else None
        return VolumeInfo(found.size_bytes, found.format, str(path), image)

    def volumes(self) -> list[str]:
        return self._named(VOLUMES)

    def found(self) -> list[FoundThing]:
        if not self._place.path.is_dir():
            return []
        try:
            return [thing for folder in ("", VOLUMES, CACHE) for thing in self._things(folder)]
        except OSError as error:
            raise translate(error) from error

    def aside(self) -> list[AsideThing]:
        return self._quarantine.things()

    def set_aside(self, id: str, kind: str, name: str) -> None:
        if kind == "image":
            final, part, lock = self._cache(name)
            with transfer.held_now(lock) as is_ours:
                if not is_ours or self._is_stood_on(final):
                    raise Rejected("in_use", f"A volume stands on the image {name}, or it is arriving.")
                self._quarantine.keep(id, kind, name, final)
                part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
        else:
            source = self._volume(name) if kind == "volume" else self._place.inside(*Path(name).parts)
            self._quarantine.keep(id, kind, name, source)

    def put_back(self, id: str) -> None:
        self._quarantine.put_back(id)

    def purge(self, id: str) -> None:
        self._quarantine.purge(id)

    def _things(self, folder: str) -> Iterator[FoundThing]:
        """The regular files of a folder (not in its folders), as what they are."""
        place = self._place.inside(folder) if folder else self._place.path
        for entry in sorted(place.iterdir()) if place.is_dir() else ():
            try:
                seen = entry.lstat()
                if stat.S_ISREG(seen.st_mode) and not (folder == CACHE and entry.name.endswith(f"{SUFFIX}.lock")):
                    yield self._thing(folder, entry, seen)
            except FileNotFoundError:
                continue

    @staticmethod
    def _thing(folder: str, file: Path, seen: os.stat_result) -> FoundThing:
        name, held = file.name.removesuffix(SUFFIX), seen.st_blocks * 512
        if not folder or not file.name.endswith(SUFFIX) or not is_canonical(name):
            return FoundThing("stranger", f"{folder}/{file.name}".lstrip("/"), held, at=seen.st_mtime)
        if folder == CACHE:
            return FoundThing("image", name, held, seen.st_size, at=seen.st_mtime)
        backing = formats.backing_name(file)
        image = Path(backing).name.removesuffix(SUFFIX) if backing else None
        return FoundThing("volume", name, held, formats.virtual_bytes(file), image, seen.st_mtime)

    def _is_stood_on(self, image: Path) -> bool:
        """Whether a volume stands on the image, one in the quarantine counts as well."""
        volumes = [*self._files(VOLUMES), *self._quarantine.files()]
        return any(self._stands_on(volume, image) for volume in volumes if not volume.is_dir())

    def _volume(self, uuid: str) -> Path:
        return self._place.inside(VOLUMES, canonical(uuid) + SUFFIX)

    def _cache(self, image: str) -> tuple[Path, Path, Path]:
        """The image's file, its partial file and its lock."""
        name = canonical(image) + SUFFIX
        return (
            self._place.inside(CACHE, name),
            self._place.inside(CACHE, f"{name}.part"),
            self._place.inside(CACHE, f"{name}.lock"),
        )

    def _files(self, folder: str) -> list[Path]:
        return sorted(self._place.inside(folder).glob(f"*{SUFFIX}"))

    def _named(self, folder: str) -> list[str]:
        names = (file.name.removesuffix(SUFFIX) for file in self._files(folder))
        return [name for name in names if is_canonical(name)]

    @staticmethod
    def _stands_on(volume: Path, image: Path) -> bool:
        try:
            return formats.backing_name(volume) == str(image)
        except FileNotFoundError:
            return False
