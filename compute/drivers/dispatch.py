"""One thread that calls functions in order: the road from a driver's events to its listeners. Standard library only."""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Dispatcher:
    """Calls functions one after another on a thread of its own; one that fails is logged and forgotten."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, function: Callable[[], None]) -> None:
        self._queue.put(function)

    def stop(self) -> None:
        """End the thread when it has done what was put before."""
        self._queue.put(None)

    def _run(self) -> None:
        while (function := self._queue.get()) is not None:
            try:
                function()
            except Exception:
                log.exception("an event of the hypervisor could not be handled")
