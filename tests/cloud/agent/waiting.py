"""Waiting for what happens in another thread or process."""

import socket
import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], deadline_s: float = 5.0) -> Any:
    """The first true value of `condition`, looked at until `deadline_s` have passed; then AssertionError."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"did not happen within {deadline_s} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
