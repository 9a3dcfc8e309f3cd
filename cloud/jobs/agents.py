"""The call to an agent: commands, desired sections and queries on its queues in Redis.

Control knows agents by uuid here; what is behind one (a host, an image server) is infra's to know.
"""

import json
import time
import uuid
from functools import cache
from typing import Any
from uuid import UUID

import redis as redis_client
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from cloud.celery import app
from cloud.common.errors import Conflict, Unavailable
from cloud.common.wire import Command, Desired, Document, Message, Query

ABORT_TTL_S = 3600
EXPIRES_AT_MOST_S = 86400


@cache
def redis() -> Any:
    """The control side's Redis client; thread-safe, one a process."""
    return redis_client.Redis.from_url(
        settings.REDIS_URL,
        decode_responses=True,
        socket_connect_timeout=2,
        socket_timeout=10,  # above the longest wait for a query's answer
        health_check_interval=15,
    )


def queue(agent: UUID | str, *, is_bulk: bool = False) -> str:
    return f"agent.{agent}.bulk" if is_bulk else f"agent.{agent}"


def _send(task: str, agent: UUID | str, message: Message, *, is_bulk: bool = False, expires: float) -> None:
    app.send_task(
        task,
        kwargs={"document": message.to_document()},
        queue=queue(agent, is_bulk=is_bulk),
        expires=max(1.0, min(expires, EXPIRES_AT_MOST_S)),
        ignore_result=True,
    )


def send_command(agent: UUID | str, command: Command, *, is_bulk: bool) -> None:
    """Put a command on the agent's queue; it vanishes there at its deadline."""
    _send("agent.command", agent, command, is_bulk=is_bulk, expires=command.deadline - time.time())


def send_desired(desired: Desired) -> None:
    """Tell a machine a section of the state it should have."""
    _send("agent.desired", desired.agent, desired, expires=60)


def abort(keys: list[str]) -> None:
    """Ask whoever works on these command keys to stop."""
    for key in keys:
        redis().set(f"mica:abort:{key}", 1, ex=ABORT_TTL_S)


def heartbeat(agent: UUID | str) -> Document | None:
    """The agent's last sign of life, None when it has been silent past its time to live."""
    text = redis().get(f"mica:agent:{agent}:alive")
    return json.loads(text) if text else None


def is_alive(agent: UUID | str) -> bool:
    """Whether the agent gave a sign of life lately; nobody is called dead while Redis itself does not answer."""
    try:
        return heartbeat(agent) is not None
    except redis_client.RedisError:
        return True


def progress(keys: list[str]) -> dict[str, Document]:
    """What agents say of the commands in work: {key: {percent, text, bytes_done, bytes_total}}."""
    if not keys:
        return {}
    try:
        found = redis().mget([f"mica:progress:{key}" for key in keys])
    except redis_client.RedisError:
        return {}  # a job can be looked at without its progress
    return {key: json.loads(text) for key, text in zip(keys, found, strict=True) if text}


def ask(agent: UUID | str, message: Message, timeout: float = 5.0) -> Document:
    """Ask a machine a read-only question and wait for the answer, at most `timeout` seconds.

    Raises Unavailable when it does not answer in time or is not able to now, and Conflict when it refuses, with its
    code.
    """
    query = Query(str(uuid.uuid4()), message.kind, message.to_document(), time.time() + timeout)
    _send("agent.query", agent, query, expires=timeout)
    answer = redis().blpop([f"mica:answer:{query.id}"], timeout=timeout)
    if answer is None:
        raise Unavailable(
            _("The machine did not answer in time."),
            code="agent_silent",
            advice=_("Check its connection; it is asked again when you repeat the request."),
        )
    document: Document = json.loads(answer[1])
    if failure := document.get("failure"):
        kind = Unavailable if failure["nature"] in ("transient", "failed") else Conflict
        raise kind(failure["detail"], code=failure["code"])
    body: Document = document.get("body", {})
    return body
