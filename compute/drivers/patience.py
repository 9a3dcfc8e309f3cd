"""Waiting for something that an event announces. Standard library only."""

import threading
import time
from collections.abc import Callable

from compute.drivers.base import Watch, unwatched

LOOK_S = 1.0


class Pulse:
    """Beats whenever something may have changed; those who wait then look whether it is what they wait for."""

    def __init__(self) -> None:
        self._beat = threading.Condition()
        self._count = 0

    def beat(self) -> None:
        with self._beat:
            self._count += 1
            self._beat.notify_all()

    def wait_until(self, condition: Callable[[], bool], deadline: float, watch: Watch = unwatched) -> bool:
        """Whether `condition` came true before `deadline` (time.monotonic()).

        Looks at each beat, and each second for a beat that was missed, when it also calls `watch`, which may raise.
        """
        while True:
            with self._beat:
                seen = self._count
            if condition():
                return True
            watch()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._beat:
                self._beat.wait_for(lambda seen=seen: self._count != seen, min(left, LOOK_S))  # type: ignore[misc]
