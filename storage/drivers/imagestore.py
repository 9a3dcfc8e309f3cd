"""An image server's store: one directory an image, the file in it there whole or not at all.

`<path>/images/<uuid>/image.qcow2`   the image (`image.iso` for an ISO); `.part` and `.source` while it is made
`<path>/images/<uuid>/image.json`    what is known of it, written before the image takes its place
`<path>/quarantine/`                 what the doctor took out of the way (`drivers.quarantine`)
"""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from cloud.common.driver import NotFound, Rejected
from storage.drivers import formats, qemu_img, transfer
from storage.drivers.base import AsideThing, Capacity, FoundThing, ImageOrder, ImageStore, Opener, StoredImage, Watch
from storage.drivers.places import Place, canonical, is_canonical, settle, translate
from storage.drivers.quarantine import FOLDER as QUARANTINE
from storage.drivers.quarantine import Quarantine, held_bytes

IMAGES, LOCKS = "images", "locks"
CHECKSUMS = ("sha256", "md5")
_CHUNK = 1 << 20
_LOOK_S = 1.0


class FileImageStore(ImageStore):
    """The image store at `path`."""

    def __init__(self, path: str) -> None:
        self._place = Place(path)
        self._quarantine = Quarantine(self._place)

    def prepare(self) -> None:
        self._place.make(LOCKS)
        for folder in self._place.make(IMAGES).iterdir():
            if not is_canonical(folder.name):
                continue  # not ours
            with transfer.held_now(self._lock(folder.name)) as is_idle:
                if is_idle and self._file(folder.name) is None:
                    shutil.rmtree(folder, ignore_errors=True)

    def capacity(self) -> Capacity:
        try:
            found = os.statvfs(self._place.path)
            held = self._place.used_bytes(without=QUARANTINE)
        except OSError as error:
            raise translate(error) from error
        return Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, held)

    def images(self) -> list[str]:
        folders = self._place.inside(IMAGES)
        names = sorted(folder.name for folder in folders.iterdir()) if folders.is_dir() else []
        return [name for name in names if is_canonical(name) and self._file(name)]

    def image(self, uuid: str) -> StoredImage | None:
        if self._file(uuid) is None:
            return None
        try:
            known = json.loads((self._folder(uuid) / "image.json").read_text())
            return StoredImage(**known)
        except (OSError, ValueError, TypeError) as error:
            raise Rejected("image_broken", f"What is known of the image {uuid} cannot be read: {error}") from error

    def add_image(self, uuid: str, order: ImageOrder, *, open_source: Opener, watch: Watch) -> StoredImage:
        algorithm, wanted = _checksum(order.checksum)
        self._place.make(LOCKS)
        with transfer.held(self._lock(uuid), watch):
            if known := self.image(uuid):
                return known
            folder = self._folder(uuid)
            shutil.rmtree(folder, ignore_errors=True)
            self._place.make(IMAGES, uuid)
            try:
                source = folder / "image.source"
                received = transfer.receive(
                    open_source,
                    source,
                    max_bytes=order.max_bytes,
                    reserve_bytes=order.reserve_bytes,
                    watch=watch,
                    algorithms=tuple(dict.fromkeys(("sha256", algorithm))),
                )
                if wanted and received.digests[algorithm] != wanted:
                    raise Rejected(
                        "checksum_mismatch",
                        f"The {algorithm} of the file is {received.digests[algorithm]}, not {wanted}.",
                    )
                return self._keep(folder, source, received.digests["sha256"], order, watch)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise translate(error) from error
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def _keep(self, folder: Path, source: Path, sha256: str, order: ImageOrder, watch: Watch) -> StoredImage:
        """Turn what was fetched into the stored image. An ISO and a qcow2 stay as they are, all else becomes qcow2."""
        form = _agreed(formats.detect(source), order)
        formats.refuse_links(source, form)
        found = qemu_img.info(source, "raw" if form == "iso" else form, watch)
        if found.backing or found.data_file:
            raise Rejected("image_refers_outside", "The image refers to another file; flatten it (qemu-img convert).")
        if found.is_encrypted:
            raise Rejected("image_encrypted", "The image is encrypted.")
        if found.size_bytes > order.max_bytes:
            raise Rejected(
                "image_too_large",
                f"The disk in the image has {found.size_bytes} bytes; at most {order.max_bytes} are taken.",
            )
        if form in ("qcow2", "iso"):
            part, content_sha256 = source, sha256
        else:
            part = folder / "image.part"
            qemu_img.convert(source, form, part, watch)
            source.unlink()
            content_sha256 = _sha256(part, watch)
        kept = StoredImage(
            format="iso" if form == "iso" else "qcow2",
            size_bytes=found.size_bytes,
            actual_size_bytes=part.stat().st_size,
            content_sha256=content_sha256,
            source_sha256=sha256,
            source_format=form,
        )
        about = folder / "about.part"
        about.write_text(json.dumps(dataclasses.asdict(kept), indent=1))
        settle(about, folder / "image.json")
        settle(part, folder / f"image.{kept.format}")
        return kept

    def delete_image(self, uuid: str) -> None:
        folder = self._folder(uuid)
        if not folder.parent.is_dir():
            return
        try:
            if file := self._file(uuid):
                file.unlink(missing_ok=True)
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise translate(error) from error
        self._lock(uuid).unlink(missing_ok=True)

    def open_image(self, uuid: str) -> BinaryIO:
        file = self._file(uuid)
        if file is None:
            raise NotFound("image_absent", f"The image {uuid} is not on this server.")
        return file.open("rb")

    def found(self) -> list[FoundThing]:
        if not self._place.path.is_dir():
            return []
        images, whole = self._place.inside(IMAGES), self._place.path
        try:
            entries = [*sorted(whole.iterdir()), *(sorted(images.iterdir()) if images.is_dir() else ())]
            return [thing for entry in entries if (thing := self._thing(entry)) is not None]
        except OSError as error:
            raise translate(error) from error

    def aside(self) -> list[AsideThing]:
        return self._quarantine.things()

    def set_aside(self, id: str, kind: str, name: str) -> None:
        if kind != "image":
            self._quarantine.keep(id, kind, name, self._place.inside(*Path(name).parts))
            return
        self._place.make(LOCKS)
        with transfer.held_now(self._lock(name)) as is_idle:
            if not is_idle:
                raise Rejected("in_use", f"The image {name} is arriving.")
            self._quarantine.keep(id, kind, name, self._folder(name))
            self._lock(name).unlink(missing_ok=True)

    def put_back(self, id: str) -> None:
        self._quarantine.put_back(id)

    def purge(self, id: str) -> None:
        self._quarantine.purge(id)

    def _thing(self, entry: Path) -> FoundThing | None:
        """An image's directory, or a file that nobody makes here; None for what is neither."""
        try:
            if entry.parent.name == IMAGES and is_canonical(entry.name):
                file = self._file(entry.name)
                if file is None:
                    return None  # it arrives, or `prepare` clears it away
                return FoundThing("image", entry.name, held_bytes(entry), file.stat().st_size, at=file.stat().st_mtime)
            if entry.is_file() and not entry.is_symlink():
                name = str(entry.relative_to(self._place.path))
                return FoundThing("stranger", name, held_bytes(entry), at=entry.stat().st_mtime)
        except FileNotFoundError:
            pass
        return None

    def _folder(self, uuid: str) -> Path:
        return self._place.inside(IMAGES, canonical(uuid))

    def _lock(self, uuid: str) -> Path:
        return self._place.inside(LOCKS, f"{canonical(uuid)}.lock")

    def _file(self, uuid: str) -> Path | None:
        """The image itself; None while there is none."""
        found = (self._folder(uuid) / f"image.{form}" for form in ("qcow2", "iso"))
        return next((file for file in found if file.is_file() and not file.is_symlink()), None)


def _checksum(text: str) -> tuple[str, str]:
    """`sha256:…` as (algorithm, lower-case digest); ("sha256", "") when the user gave none."""
    if not text:
        return "sha256", ""
    algorithm, _colon, digest = text.partition(":")
    if algorithm not in CHECKSUMS:
        raise Rejected("checksum_unknown", f"Checksums are sha256 or md5, not {algorithm!r}.")
    return algorithm, digest.strip().lower()


def _agreed(found: str, order: ImageOrder) -> str:
    """The format to read the file as. Raises Rejected `format_mismatch` when the user expected another."""
    if order.media == "iso":
        if found != "iso":
            raise Rejected("format_mismatch", f"The file is no ISO 9660 image but {found}.")
        return "iso"
    if order.format == "raw" and found == "iso":
        return "raw"  # an isohybrid image is a disk as well
    if order.format and order.format != found:
        raise Rejected("format_mismatch", f"The file is {found}, not {order.format}.")
    if found == "iso":
        raise Rejected("format_mismatch", "The file is an ISO image; add it with the media `iso`.")
    return found


def _sha256(path: Path, watch: Watch) -> str:
    digest, done, total, looked_at = hashlib.sha256(), 0, path.stat().st_size, 0.0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if time.monotonic() - looked_at >= _LOOK_S:
                looked_at = time.monotonic()
                watch.check_aborted()
                watch.progress(done, total, "checking")
    return digest.hexdigest()
