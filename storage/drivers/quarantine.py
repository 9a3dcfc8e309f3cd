"""What was taken out of the way on a storage, where it can be put back from.

`<storage>/quarantine/<id>/thing`           the file or directory itself, moved and never copied
`<storage>/quarantine/<id>/manifest.json`   what it was and where, written before it is moved
"""

import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud.common.driver import NotFound, Rejected
from storage.drivers.base import AsideThing
from storage.drivers.places import Place, canonical, is_canonical, sync_directory, translate

FOLDER = "quarantine"
_THING, _MANIFEST = "thing", "manifest.json"
# The bytes that QEMU locks of an image it has open (qemu block/file-posix.c, RAW_LOCK_*_BASE).
_QEMU_LOCKS_AT, _QEMU_LOCKS = 100, 200
_FLOCK = "hhqqi4x"


class Quarantine:
    """The quarantine of the storage at `place`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def keep(self, id: str, kind: str, name: str, source: Path) -> None:
        """Move `source` in. Raises NotFound, Rejected `in_use`."""
        thing = self._folder(id) / _THING
        if thing.exists():
            return
        if not source.exists():
            raise NotFound("nothing_there", f"{source} is not there (any more).")
        if source.is_file() and is_open(source):
            raise Rejected("in_use", f"{source} is open: a virtual machine uses it.")
        folder = self._place.make(FOLDER, canonical(id))
        try:
            manifest = {
                "id": id,
                "kind": kind,
                "name": name,
                "from": str(source.relative_to(self._place.path)),
                "at": time.time(),
            }
            (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            os.rename(source, thing)
            sync_directory(source.parent)
            sync_directory(folder)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotFound("nothing_there", f"{source} is not there (any more).") from None
        except OSError as error:
            raise translate(error) from error

    def put_back(self, id: str) -> None:
        """Move it to where it came from. Raises NotFound, Rejected `place_taken`."""
        folder = self._folder(id)
        about = self._manifest(folder)
        if about is None:
            raise NotFound("not_in_quarantine", f"The quarantine of {self._place.path} holds nothing as {id}.")
        target = self._place.inside(*Path(about["from"]).parts)
        try:
            if target.exists():
                raise Rejected("place_taken", f"Something else is at {target} now.")
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.rename(folder / _THING, target)
            sync_directory(target.parent)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise translate(error) from error

    def purge(self, id: str) -> None:
        """Remove it for good; absent is fine."""
        shutil.rmtree(self._folder(id), ignore_errors=True)

    def things(self) -> list[AsideThing]:
        found = []
        for folder in self._folders():
            about = self._manifest(folder)
            if about is not None:
                taken = held_bytes(folder / _THING)
                found.append(AsideThing(folder.name, about["kind"], about["name"], taken, about["at"]))
        return found

    def files(self) -> Iterator[Path]:
        """The things themselves."""
        return (folder / _THING for folder in self._folders())

    def _folder(self, id: str) -> Path:
        return self._place.inside(FOLDER, canonical(id))

    def _folders(self) -> list[Path]:
        whole = self._place.inside(FOLDER)
        return sorted(each for each in whole.iterdir() if is_canonical(each.name)) if whole.is_dir() else []

    @staticmethod
    def _manifest(folder: Path) -> dict[str, Any] | None:
        """What is in the folder; None where the thing never arrived, or nobody knows what it was."""
        try:
            about: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        except (OSError, ValueError):
            return None
        return about if (folder / _THING).exists() else None


def is_open(file: Path) -> bool:
    """Whether a QEMU process has the image open: it then holds locks in it (fcntl(2), F_OFD_GETLK)."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _QEMU_LOCKS_AT, _QEMU_LOCKS, 0)
    try:
        with file.open("rb") as handle:
            answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise translate(error) from error
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def held_bytes(thing: Path) -> int:
    """What a file, or all files in a directory, take on the disk."""
    if not thing.is_dir():
        return thing.lstat().st_blocks * 512
    return sum(each.lstat().st_blocks * 512 for each in thing.rglob("*") if each.is_file())
