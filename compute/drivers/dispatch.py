"""Functions called in order, one after another: the road from a driver's events to its listeners."""

import logging
import queue
from collections.abc import Callable

from cloud.agent.clockwork import Clockwork

log = logging.getLogger(__name__)


class Dispatcher:
    """Calls functions one after another, not in the thread that puts them; one that fails is logged and forgotten.

    Without a clockwork to share it has one of its own.
    """

    def __init__(self, name: str, clockwork: Clockwork | None = None) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._routine = (clockwork or Clockwork(1)).routine(self._drain, name=name, first_s=None)
        self._is_started = False

    def start(self) -> None:
        """Begin with what was put before."""
        self._is_started = True
        self._routine.wake()

    def put(self, function: Callable[[], None]) -> None:
        self._queue.put(function)
        if self._is_started:
            self._routine.wake()

    def stop(self) -> None:
        """Call no more when what was put before is done."""
        self._queue.put(None)
        self._routine.wake()

    def _drain(self) -> None:
        while not self._queue.empty():
            function = self._queue.get()
            if function is None:
                self._routine.stop()
                return
            try:
                function()
            except Exception:
                log.exception("an event of the hypervisor could not be handled")
