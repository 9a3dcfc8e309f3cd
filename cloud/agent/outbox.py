"""What an agent says to control: kept in order and sent by one thread, so that nobody who speaks ever waits.

It lives in memory. What is lost with it is asked for again (answers come from the journal) or told again (inventory,
heartbeat).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cloud.agent import jitter, wording
from cloud.common.wire import Document

log = logging.getLogger(__name__)

ROOM = 10_000
LONGEST_PAUSE_S = 5.0

Send = Callable[[str, Document], None]


class Box(Protocol):
    """Whatever takes what an agent says."""

    def put(self, task: str, document: Document) -> None: ...


class Outbox:
    """Sends (task, document) pairs with `send`, which raises when control cannot be reached; then tries for ever."""

    def __init__(self, send: Send, *, room: int = ROOM) -> None:
        self._send = send
        self._waiting: deque[tuple[str, Document]] = deque(maxlen=room)
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, task: str, document: Document) -> None:
        """Queue a document for the control task `task`; when `room` (ten thousand) wait, the oldest is forgotten."""
        entry = (task, wording.fit(document))
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify_all()

    def stop(self, within_s: float) -> None:
        """Send what waits, for at most `within_s` seconds."""
        deadline = time.monotonic() + within_s
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, timeout=max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                entry = self._waiting[0]
            try:
                self._send(*entry)
            except Exception as error:
                if pause == 0.0:
                    log.warning("control cannot be told: %s", error)
                pause = min(LONGEST_PAUSE_S, max(0.2, pause * 2))
                time.sleep(jitter.between(0.1, pause))
                continue
            pause = 0.0
            with self._changed:
                if self._waiting and self._waiting[0] is entry:
                    self._waiting.popleft()
                if not self._waiting:
                    self._changed.notify_all()
