"""The sign of life: every three seconds, with what is in work and which state is held."""

import logging
import threading
from collections.abc import Callable

import redis

from cloud.agent import jitter
from cloud.agent.link import RedisLink
from cloud.common.wire import Document

log = logging.getLogger(__name__)

EVERY_S = 3.0


class Heartbeat:
    """Shows `describe()` through the link until stopped; a Redis that is away is tried again at the next beat."""

    def __init__(self, link: RedisLink, describe: Callable[[], Document]) -> None:
        self._link, self._describe = link, describe
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, is_parting: bool = True) -> None:
        """Beat no more; when parting, take the last sign of life away, so that control need not wait for its end."""
        self._stopping.set()
        self._thread.join(timeout=6)
        if is_parting:
            self._link.part()

    def _work(self) -> None:
        is_heard = True
        while not self._stopping.is_set():
            try:
                self._link.beat(self._describe())
                is_heard = True
            except redis.RedisError as error:
                if is_heard:
                    log.warning("no sign of life can be given: %s", error)
                is_heard = False
            self._stopping.wait(jitter.between(0.9 * EVERY_S, EVERY_S))
