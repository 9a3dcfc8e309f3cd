"""A stamp remembers the inputs something was made from, so that it is made again only when they change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def digest(*inputs: Path | str) -> str:
    """SHA-256 over texts and the contents of files; a folder counts with all files below it, by name."""
    total = hashlib.sha256()
    for entry in inputs:
        if isinstance(entry, str):
            total.update(b"text\0" + entry.encode())
            continue
        for file in sorted(_files(entry)):
            # Where a link leads is what counts of it: what lies there may be the machine's own business.
            content = os.readlink(file).encode() if file.is_symlink() else file.read_bytes()
            total.update(b"file\0" + file.name.encode() + b"\0" + content)
    return total.hexdigest()


def is_current(stamp: Path, value: str) -> bool:
    return stamp.exists() and stamp.read_text() == value


def write(stamp: Path, value: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(value)


def _files(entry: Path) -> Iterable[Path]:
    if not entry.is_dir():
        return [entry]
    return (file for file in entry.rglob("*") if _counts(file))


def _counts(file: Path) -> bool:
    return (file.is_symlink() or file.is_file()) and "__pycache__" not in file.parts
