"""One line a step: what is done, how long it took, what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

WIDTH = 34


class Note:
    """What a step wants to add to its line."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text = text


class Steps:
    """Prints steps as they pass; the name of a step is shown when it starts, the time when it ends."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        """Time the block and print its line. An exception passes through, the line says that it failed."""
        note = Note()
        started = time.monotonic()
        self._out.write(f"  {name:<{WIDTH}} ")
        self._out.flush()
        try:
            yield note
        except BaseException:
            self._end(time.monotonic() - started, "failed")
            raise
        self._end(time.monotonic() - started, note.text)

    def say(self, text: str = "") -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def _end(self, seconds: float, text: str) -> None:
        self._out.write(f"{seconds:7.1f} s  {text}".rstrip() + "\n")
        self._out.flush()
