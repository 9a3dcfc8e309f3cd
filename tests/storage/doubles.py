"""Stand-ins that storage's tests share: who watches long work, sources of bytes, disk files made by qemu-img."""

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cloud.common.driver import Aborted


class Watcher:
    """Remembers the progress it is told; aborts when `stop` is set or after `abort_after` looks."""

    def __init__(self, abort_after: int | None = None) -> None:
        self.told: list[tuple[int, int, str]] = []
        self.stop = threading.Event()
        self._left = abort_after

    def progress(self, done: int, total: int, text: str = "") -> None:
        self.told.append((done, total, text))

    def check_aborted(self) -> None:
        if self._left is not None:
            self._left -= 1
        if self.stop.is_set() or (self._left is not None and self._left < 0):
            raise Aborted


class Bytes:
    """A body of bytes held in memory; `announced` is the length it claims."""

    def __init__(self, data: bytes, announced: int | None = -1, chunk: int = 65536) -> None:
        self._data, self._chunk = data, chunk
        self.size_bytes = len(data) if announced == -1 else announced

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), self._chunk):
            yield self._data[at : at + self._chunk]


def source(data: bytes, announced: int | None = -1) -> Callable[[], AbstractContextManager[Bytes]]:
    @contextmanager
    def opened() -> Iterator[Bytes]:
        yield Bytes(data, announced)

    return opened


def broken(data: bytes, error: Exception) -> Callable[[], AbstractContextManager[Bytes]]:
    """A source that breaks off after `data`."""

    class Body(Bytes):
        def chunks(self) -> Iterator[bytes]:
            yield from super().chunks()
            raise error

    @contextmanager
    def opened() -> Iterator[Bytes]:
        yield Body(data, None)

    return opened


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def disk(folder: Path, form: str = "qcow2", size: str = "1M", *options: str) -> bytes:
    """The bytes of a small disk image of this format."""
    path = folder / f"made.{form}"
    qemu_img("create", "-q", "-f", form, *options, path, size)
    data = path.read_bytes()
    path.unlink()
    return data
