"""The list that all agents push to, read with suspicion.

A Celery message may name any task, carry callbacks that call others, tell its own delivery tag, or be no message at
all, which would end the worker that reads it. Of what lies in `control.answers` only the task's name (one of
`origin.ACCEPTED`), the document and its signature are taken; everything else of the message is made anew here.
"""

import base64
import json
import logging
import uuid
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import SentinelChannel, SentinelTransport
from kombu.transport.redis import Transport as RedisTransport

from cloud.common.wire import Document

log = logging.getLogger(__name__)

QUEUE = "control.answers"
LONGEST_BYTES = 4 << 20


class _Guarded:
    """Mixed into a channel of Redis: `_brpop_read` and `_get` hand what they read to `loads` of this module."""

    def _brpop_read(self, **options: Any) -> Any:
        channel: Any = self
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:
            # No JSON at all: it is off the list already. Kombu would have this end the worker.
            _refuse("unreadable", str(error))
            channel._in_poll = None
            return True


def deliver(deliver_on: Any, message: Any, queue: str) -> None:
    """Give a message to its consumer; one of agents only as far as it is theirs to say."""
    if queue == QUEUE:
        message = made_anew(message)
        if message is None:
            return
    deliver_on(message, queue)


def made_anew(message: Any) -> Document | None:
    """A message of the same task, document and signature, and of nothing else; None when it is refused."""
    try:
        task = message["headers"]["task"]
        text = message["body"]
        if message["properties"].get("body_encoding") != "base64" or message.get("content-type") != "application/json":
            raise ValueError("not in base64 and JSON")
        if message["headers"].get("compression") or len(text) > LONGEST_BYTES:
            raise ValueError("too long")
        _, given, _ = json.loads(base64.b64decode(text))
        said = {name: given.get(name) for name in ("document", "signature")}
        body = json.dumps([[], said, None])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _refuse("unreadable", f"{type(error).__name__}: {error}")
        return None
    from cloud.jobs import origin

    if not isinstance(task, str) or task not in origin.ACCEPTED:
        _refuse("not_for_agents", str(task)[:64])
        return None
    number = str(uuid.uuid4())
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": number,
            "root_id": number,
            "parent_id": None,
            "retries": 0,
            "timelimit": [None, None],
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": number,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _refuse(reason: str, what: str) -> None:
    from cloud.jobs import origin

    log.debug("a message in %s is refused: %s: %s", QUEUE, reason, what)
    try:
        origin.refuse(reason, what)
    except Exception:
        # The reader of messages lives on, whatever the database says to an event.
        log.exception("a refused message could not be told of")


class Channel(_Guarded, RedisChannel):  # type: ignore[misc]
    pass


class Transport(RedisTransport):  # type: ignore[misc]
    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        deliver(super()._deliver, message, queue)


class GuardedSentinelChannel(_Guarded, SentinelChannel):  # type: ignore[misc]
    pass


class GuardedSentinelTransport(SentinelTransport):  # type: ignore[misc]
    Channel = GuardedSentinelChannel

    def _deliver(self, message: Any, queue: str) -> None:
        deliver(super()._deliver, message, queue)


def guard() -> None:
    """Have every connection that this process makes to a broker on Redis read with suspicion."""
    for name in ("redis", "rediss"):
        TRANSPORT_ALIASES[name] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:GuardedSentinelTransport"
