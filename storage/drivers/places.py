"""Names of files of a storage, made so that nothing outside the storage's directory can ever be meant."""

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from cloud.common.driver import DriverError, Rejected, Transient

FULL = {28: "storage_full", 122: "storage_full"}  # ENOSPC, EDQUOT


def translate(error: OSError) -> DriverError:
    """The driver error of what the operating system said."""
    detail = f"{error.filename or 'the storage'}: {error.strerror}"
    if error.errno in FULL:
        return Rejected("storage_full", f"No room is left on the device ({detail}).")
    if isinstance(error, PermissionError) or error.errno == 30:
        return Rejected("storage_not_writable", f"The storage cannot be written ({detail}).")
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return Rejected("storage_path_taken", f"Something else is where the storage should be ({detail}).")
    return Transient("storage_error", f"The storage answered with an error ({detail}).")


def canonical(name: str) -> str:
    """The uuid in canonical form. Raises Rejected: no other text ever becomes part of a file name."""
    if not is_canonical(name):
        raise Rejected("bad_uuid", f"Not a canonical uuid: {name!r}.")
    return name


def is_canonical(name: str) -> bool:
    """Whether this is a uuid as we write it."""
    try:
        return str(uuid.UUID(name)) == name
    except (ValueError, AttributeError, TypeError):
        return False


class Place:
    """The directory of a storage. `path` is absolute and normal; the directory may be made by `make`."""

    def __init__(self, path: str) -> None:
        if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//") or path.count("/") < 1:
            raise Rejected("bad_path", f"Not an absolute, normal path: {path!r}.")
        if path == "/" or "\0" in path:
            raise Rejected("bad_path", f"A storage cannot be at {path!r}.")
        self.path = Path(path)

    def make(self, *parts: str) -> Path:
        """The directory `parts` inside the storage, made when absent."""
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            inside = self.path.joinpath(*parts)
            inside.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise translate(error) from error
        return self.inside(*parts)

    def inside(self, *parts: str) -> Path:
        """The path of `parts` in the storage. Raises Rejected when a link leads it out of the storage."""
        wanted = self.path.joinpath(*parts)
        root = os.path.realpath(self.path)
        real_parent = os.path.realpath(wanted.parent if parts else wanted)
        if real_parent != root and not real_parent.startswith(root + os.sep):
            raise Rejected("outside_storage", f"{wanted} is not inside {self.path}.")
        if wanted.is_symlink():
            raise Rejected("outside_storage", f"{wanted} is a symbolic link.")
        return wanted

    def used_bytes(self, *, without: str = "") -> int:
        """What the regular files below the storage take on the disk, apart from those in the directory `without`."""
        return sum(found.st_blocks * 512 for found in self._files(without))

    def _files(self, without: str) -> Iterator[os.stat_result]:
        for folder, folders, names in os.walk(self.path):
            if without and folder == str(self.path) and without in folders:
                folders.remove(without)
            for name in names:
                try:
                    found = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield found


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(part: Path, final: Path) -> None:
    """Put a finished file in its place: it is there whole or not at all."""
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(part, final)
    sync_directory(final.parent)
