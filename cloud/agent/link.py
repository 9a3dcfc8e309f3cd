"""The agent's own keys in Redis: heartbeat, last sample, progress, abort tokens and answers to queries.

Nothing here is needed for the truth: whatever fails is logged once, and the work goes on.
"""

import json
import logging
import socket
import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloud.agent import stream_client, wording
from cloud.agent.config import AgentConfig
from cloud.agent.outbox import Box
from cloud.common import signing
from cloud.common.wire import Document, Observation

log = logging.getLogger(__name__)

ALIVE_TTL_S = 15
SAMPLE_TTL_S = 60
PROGRESS_TTL_S = 60
ANSWER_TTL_S = 30
EVERY_S = 1.0
SILENT_FOR_S = 3.0


class ClockUnknown(Exception):
    """What is signed carries control's time, and that is not known yet: tried again a moment later."""


class Clock:
    """How far Redis' clock is ahead of this machine's, as last heard; None before. Several links may share one."""

    def __init__(self) -> None:
        self.skew_s: float | None = None

    def read(self, client: Any) -> None:
        """Ask Redis for its time. Raises redis.RedisError."""
        before = time.time()
        seconds, microseconds = client.time()
        self.skew_s = seconds + microseconds / 1e6 - (before + time.time()) / 2


class RedisLink:
    """A machine's link to control (`registry.Link`), and the keys that the agent itself keeps.

    Agents of one process may have one Redis client, `shared`, and one `clock`.
    """

    def __init__(self, config: AgentConfig, outbox: Box, *, shared: Any = None, clock: Clock | None = None) -> None:
        self._config = config
        self._outbox = outbox
        self._key = signing.password_hash(config.redis_password)
        self._redis: Any = shared or client(config)
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._shown_at: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._aborted: set[str] = set()
        self._progress = f"mica:progress:{config.uuid}"
        self._silent_until = 0.0

    def now(self) -> float:
        """Seconds since the epoch by Redis' clock, as last heard: deadlines and tickets are by control's time."""
        return time.time() + self.skew_s

    def said_at(self) -> float:
        """When something is said, for those who drop what is old: 0, not known, until Redis' clock was heard."""
        return 0.0 if self._clock.skew_s is None else self.now()

    @property
    def skew_s(self) -> float:
        """How far Redis' clock is ahead of this machine's; 0 until it was heard."""
        return self._clock.skew_s or 0.0

    def sign(self, task: str, document: Document) -> Document:
        """The signature of something said to control. Raises ClockUnknown until Redis' clock was heard."""
        if self._clock.skew_s is None:
            raise ClockUnknown("control's clock is not heard yet")
        return signing.sign(self._key, task, document, agent=self._config.uuid, at=self.now())

    def publish(self, topic: str, body: Document) -> None:
        observation = Observation(self._config.uuid, topic, body, self.said_at())
        self._outbox.put("infra.observed", observation.to_document())

    def open_stream(self, address: str, port: int, ticket: str) -> socket.socket:
        return stream_client.connect(self._config, address, port, ticket)

    def show_progress(self, key: str, document: Document) -> None:
        with self._lock:
            is_end = document.get("percent") == 100.0
            if time.monotonic() - self._shown_at.get(key, -EVERY_S) < EVERY_S and not is_end:
                return
            self._shown_at[key] = time.monotonic()
        self._try("HSET", self._progress, key, _json(document))
        self._try("EXPIRE", self._progress, PROGRESS_TTL_S)

    def is_aborted(self, key: str) -> bool:
        with self._lock:
            if key in self._aborted or time.monotonic() - self._asked_at.get(key, -EVERY_S) < EVERY_S:
                return key in self._aborted
            self._asked_at[key] = time.monotonic()
        if self._try("EXISTS", f"mica:abort:{self._config.uuid}:{key}"):
            with self._lock:
                self._aborted.add(key)
            return True
        return False

    def forget(self, key: str) -> None:
        """A command has ended: its progress is history."""
        with self._lock:
            self._aborted.discard(key)
            self._asked_at.pop(key, None)
            was_shown = self._shown_at.pop(key, None) is not None
        if was_shown:
            self._try("HDEL", self._progress, key)

    def beat(self, document: Document) -> None:
        """The sign of life, with the time by Redis' clock as `at`. Raises redis.RedisError."""
        self._clock.read(self._redis)
        key, alive = self.alive(document)
        self._redis.set(key, alive, ex=ALIVE_TTL_S)

    def alive(self, document: Document) -> tuple[str, str]:
        """The key and the text of a sign of life."""
        return f"mica:agent:{self._config.uuid}:alive", _json({"at": self.now(), **document})

    def part(self) -> None:
        """Say that this agent stops, by taking the sign of life away."""
        self._try("DEL", f"mica:agent:{self._config.uuid}:alive")

    def show_sample(self, document: Document) -> None:
        self._try("SET", f"mica:agent:{self._config.uuid}:sample", _json(document), "EX", SAMPLE_TTL_S)

    def answer_query(self, query: str, document: Document) -> None:
        name = f"mica:answer:{query}"
        try:
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.rpush(name, _json(document)).expire(name, ANSWER_TTL_S).execute()
        except redis.RedisError as error:
            log.warning("query %s cannot be answered: %s", query, error)

    def _try(self, *command: Any) -> Any:
        """Do it if Redis can be reached; a Redis that is away is left alone a while, so that work is not held up."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            return self._redis.execute_command(*command)
        except redis.RedisError as error:
            self._silent_until = time.monotonic() + SILENT_FOR_S
            log.warning("%s %s failed: %s", command[0], command[1], error)
            return None


def _json(document: Document) -> str:
    return json.dumps(wording.fit(document))


def tls_options(config: AgentConfig) -> dict[str, Any]:
    """How redis-py and kombu are told to speak TLS with the agent's certificate; empty for a plain `redis://`."""
    if not config.redis_url.startswith("rediss://"):
        return {}
    return {
        "ssl_ca_certs": str(config.ca),
        "ssl_certfile": str(config.certificate),
        "ssl_keyfile": str(config.key),
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
    }


def client(config: AgentConfig) -> Any:
    """A thread-safe Redis client that gives up on an answer after five seconds."""
    return redis.Redis.from_url(
        config.redis_url,
        username=config.redis_username or None,
        password=config.redis_password or None,
        socket_timeout=5,
        socket_connect_timeout=3,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1),
        **tls_options(config),
    )
