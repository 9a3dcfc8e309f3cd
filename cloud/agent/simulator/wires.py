"""Many agents on few connections: the same queues, messages and keys as theirs, taken and told together.

Redis gives what waits in the first of many lists that has something, and is told all their names each time: so each
connection takes for some dozens of agents.
"""

import base64
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import redis

from cloud.agent import jitter
from cloud.agent.config import AgentConfig
from cloud.agent.intake import ANSWER_QUEUE
from cloud.agent.link import client
from cloud.agent.simulator.config import SimulatorConfig
from cloud.common.wire import Document

log = logging.getLogger(__name__)

AGENTS_A_LINE = 50
WAIT_S = 2
LONGEST_PAUSE_S = 5.0

# An agent's uuid, the task, its document, whether it came by the bulk queue.
Take = Callable[[str, str, Document, bool], None]


def connect(config: SimulatorConfig) -> Any:
    """A thread-safe client of control's Redis, as the simulator's own user."""
    if config.redis_url.startswith("unix://"):
        return redis.Redis.from_url(
            config.redis_url,
            username=config.redis_username or None,
            password=config.redis_password or None,
            socket_timeout=5,
        )
    user, password = config.redis_username, config.redis_password
    return client(AgentConfig("", redis_url=config.redis_url, redis_username=user, redis_password=password))


def opened(raw: bytes) -> tuple[str, Document]:
    """Task and document of a Celery message. Raises ValueError, TypeError or KeyError when it is none."""
    envelope = json.loads(raw)
    body = envelope["body"]
    if envelope["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    _positional, named, _more = json.loads(body)
    return str(envelope["headers"]["task"]), named["document"]


def enclosed(task: str, **named: Any) -> bytes:
    """A Celery message of protocol 2 for control (docs.celeryq.dev, "Message Protocol"), as Kombu puts it on a list."""
    number = str(uuid.uuid4())
    body = json.dumps([[], named, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": number,
            "root_id": number,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "timelimit": [None, None],
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": number,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": ANSWER_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message).encode()


class Line:
    """One connection that takes what comes for its agents; `connected` hears their uuids at each connection."""

    def __init__(self, redis_client: Any, take: Take, connected: Callable[[list[str]], None]) -> None:
        self._redis, self._take, self._connected = redis_client, take, connected
        self._keys: list[str] = []
        self._changed = threading.Condition()
        self._is_stopping = False
        self.agents: list[str] = []
        threading.Thread(target=self._work, name="line", daemon=True).start()

    def serve(self, agents: list[str]) -> None:
        """Take for these agents from now on; those that are new hear that they are connected."""
        with self._changed:
            new = [agent for agent in agents if agent not in self.agents]
            self.agents = list(agents)
            self._keys = [name for agent in agents for name in (f"agent.{agent}", f"agent.{agent}.bulk")]
            self._changed.notify_all()
        if new:
            self._connected(new)

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def _work(self) -> None:
        is_connected, pause = True, 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._keys or self._is_stopping)
                if self._is_stopping:
                    return
                keys = self._keys
            try:
                found = self._redis.brpop(keys, timeout=WAIT_S)
            except redis.RedisError as error:
                if is_connected:
                    log.warning("control's Redis cannot be reached: %s", error)
                is_connected, pause = False, min(LONGEST_PAUSE_S, max(0.5, pause * 2))
                time.sleep(jitter.between(0.2, pause))
                continue
            if not is_connected:
                is_connected, pause = True, 0.0
                self._connected(self.agents)
            if found is not None:
                self._hand_over(found[0].decode(), found[1])

    def _hand_over(self, queue: str, raw: bytes) -> None:
        with self._changed:
            # Whoever was served comes last, so that nobody waits behind a busy one.
            if queue in self._keys:
                place = self._keys.index(queue) + 1
                self._keys = self._keys[place:] + self._keys[:place]
        agent, _dot, kind = queue.removeprefix("agent.").partition(".")
        try:
            task, document = opened(raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("a message on %s cannot be read: %s", queue, error)
            return
        try:
            self._take(agent, task, document, kind == "bulk")
        except Exception:
            log.exception("%s for %s failed", task, agent)


class Lines:
    """As many lines as the agents need."""

    def __init__(self, redis_client: Any, take: Take, connected: Callable[[list[str]], None]) -> None:
        self._redis, self._take, self._connected = redis_client, take, connected
        self._lines: list[Line] = []

    def serve(self, agents: list[str]) -> None:
        """Take for these agents; each stays with its line, new ones go where there is room."""
        wanted = set(agents)
        kept = [[agent for agent in line.agents if agent in wanted] for line in self._lines]
        new = [agent for agent in agents if agent not in {one for some in kept for one in some}]
        for some in kept:
            while new and len(some) < AGENTS_A_LINE:
                some.append(new.pop(0))
        while new:
            self._lines.append(Line(self._redis, self._take, self._connected))
            kept.append([new.pop(0) for _ in range(min(AGENTS_A_LINE, len(new)))])
        for line, some in zip(self._lines, kept, strict=True):
            if some != line.agents:
                line.serve(some)

    def stop(self) -> None:
        for line in self._lines:
            line.stop()
