"""Waiting for something that tells nobody."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], deadline_s: float, *, every_s: float = 0.2) -> T:
    """The first true value of the condition. Raises TimeoutError when there was none within `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while True:
        if value := condition():
            return value
        if time.monotonic() >= end:
            raise TimeoutError
        time.sleep(every_s)
