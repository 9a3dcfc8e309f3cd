"""Writing what is fetched into a file: counted, hashed, bounded, watched, and gone again when anything fails."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloud.common.driver import Rejected
from storage.drivers.base import Body, Opener, Watch
from storage.drivers.places import translate

_LOOK_S = 1.0
_ROOM_EVERY_BYTES = 64 << 20


@dataclass(frozen=True)
class Received:
    """What arrived: the number of bytes and their checksums, by algorithm."""

    size_bytes: int
    digests: dict[str, str]


def room_bytes(folder: Path) -> int:
    """Bytes that may still be written where `folder` is."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def receive(
    open_source: Opener,
    part: Path,
    *,
    max_bytes: int,
    reserve_bytes: int,
    watch: Watch,
    algorithms: tuple[str, ...] = ("sha256",),
    text: str = "downloading",
) -> Received:
    """Write the source to `part`, which holds the whole of it afterwards and is gone when this raises.

    Raises Rejected `image_too_large` or `storage_full` as soon as it is known, be a length announced or not; Aborted.
    """
    try:
        with open_source() as body, part.open("wb") as file:
            _fits(body.size_bytes or 0, max_bytes, reserve_bytes, part)
            received = _copy(body, file.fileno(), part, max_bytes, reserve_bytes, watch, algorithms, text)
            os.fsync(file.fileno())
            return received
    except OSError as error:
        part.unlink(missing_ok=True)
        raise translate(error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _copy(
    body: Body,
    handle: int,
    part: Path,
    max_bytes: int,
    reserve_bytes: int,
    watch: Watch,
    algorithms: tuple[str, ...],
    text: str,
) -> Received:
    hashes = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    done, looked_at, room_at, total = 0, 0.0, 0, body.size_bytes or 0
    for chunk in body.chunks():
        done += len(chunk)
        if done > max_bytes:
            raise _too_large(done, max_bytes)
        if done - room_at >= _ROOM_EVERY_BYTES:
            room_at = done
            _fits(len(chunk), max_bytes, reserve_bytes, part)
        view = memoryview(chunk)
        while view:
            view = view[os.write(handle, view) :]
        for digest in hashes:
            digest.update(chunk)
        if time.monotonic() - looked_at >= _LOOK_S:
            looked_at = time.monotonic()
            watch.check_aborted()
            watch.progress(done, total, text)
    watch.progress(done, total or done, text)
    return Received(done, {name: digest.hexdigest() for name, digest in zip(algorithms, hashes, strict=True)})


def _fits(more_bytes: int, max_bytes: int, reserve_bytes: int, part: Path) -> None:
    if more_bytes > max_bytes:
        raise _too_large(more_bytes, max_bytes)
    room = room_bytes(part.parent) - reserve_bytes
    if more_bytes > room:
        raise Rejected("storage_full", f"{more_bytes} bytes do not fit: {max(room, 0)} are free besides the reserve.")


def _too_large(size_bytes: int, max_bytes: int) -> Rejected:
    return Rejected("image_too_large", f"The image has {size_bytes} bytes or more; at most {max_bytes} are taken.")


@contextmanager
def held(lock: Path, watch: Watch, waiting: Path | None = None, total: int = 0) -> Iterator[None]:
    """Hold a lock file for the time of the block, waiting for whoever holds it; the kernel frees it when they die.

    While waiting, the growth of the file `waiting` is told as progress, and the abort token is looked at.
    """
    while (handle := _take(lock)) is None:
        watch.check_aborted()
        if waiting is not None:
            watch.progress(waiting.stat().st_size if waiting.exists() else 0, total, "waiting for the same transfer")
        time.sleep(_LOOK_S / 4)  # no event tells that a file lock is free, and a blocking wait cannot be aborted
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def held_now(lock: Path) -> Iterator[bool]:
    """Try to hold the lock: True inside the block when it is ours, False when somebody else's."""
    handle = _take(lock)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _take(lock: Path) -> int | None:
    """The locked file's handle, None when it is taken. A lock removed while we waited for it is not the lock."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(lock)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None
