"""The call to an agent: commands, desired sections and queries on its queues in Redis.

Control knows agents by uuid here; what is behind one (a host, an image server) is infra's to know.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from uuid import UUID

import redis as redis_client
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from cloud.celery import app
from cloud.common import sealing
from cloud.common.errors import Conflict, Unavailable
from cloud.common.wire import Answer, Command, Desired, Document, Message, Query, storable

EXPIRES_AT_MOST_S = 86400
ABORT_TTL_S = EXPIRES_AT_MOST_S  # a command that is given up must find its token however late it is found itself
_admissions: list[Callable[[UUID | str], None]] = []


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
        kwargs={"document": _sealed(agent, message.to_document())},
        queue=queue(agent, is_bulk=is_bulk),
        expires=max(1.0, min(expires, EXPIRES_AT_MOST_S)),
        ignore_result=True,
    )


def _sealed(agent: UUID | str, document: Document) -> Document:
    """The document as it may leave this process: what is secret in it can be read by that machine only."""
    if not sealing.has_secrets(document):
        return document
    from cloud.jobs import machines

    machine = machines.find(agent)
    return sealing.sealed(document, str(agent), machine.public_key if machine else "")


def send_command(agent: UUID | str, command: Command, *, is_bulk: bool) -> None:
    """Put a command on the agent's queue; it vanishes there at its deadline."""
    _send("agent.command", agent, command, is_bulk=is_bulk, expires=command.deadline - time.time())


def send_desired(desired: Desired) -> None:
    """Tell a machine a section of the state it should have."""
    _send("agent.desired", desired.agent, desired, expires=60)


def abort(keys: Mapping[str, UUID | str]) -> None:
    """Ask whoever works on these command keys to stop: {key: agent}."""
    for key, agent in keys.items():
        redis().set(f"mica:abort:{agent}:{key}", 1, ex=ABORT_TTL_S)


def _document(text: str | None) -> Document | None:
    """What an agent wrote under a key of its own; None when it makes no sense."""
    try:
        said = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def heartbeat(agent: UUID | str) -> Document | None:
    """The agent's last sign of life, None when it has been silent past its time to live."""
    return read_heartbeat(redis().get(f"mica:agent:{agent}:alive"))


def read_heartbeat(text: str | None) -> Document | None:
    """A sign of life with only what it may hold: whatever an agent wrote there, the others must not suffer for it."""
    said = _document(text)
    if said is None:
        return {} if text else None
    said = storable(said)
    held = {name: n for name, n in _dict(said.get("held")).items() if isinstance(n, int) and abs(n) < 1 << 60}
    failures = {
        section: {part: each for part, each in _dict(parts).items() if isinstance(each, dict)}
        for section, parts in _dict(said.get("failures")).items()
    }
    known: Document = {name: said[name] for name in ("at", "clock_skew_s") if isinstance(said.get(name), (int, float))}
    known |= {name: said[name][:64] for name in ("boot_id", "version") if isinstance(said.get(name), str)}
    protocol = said.get("protocol")
    known |= {"protocol": protocol} if isinstance(protocol, int) and 0 <= protocol < 1 << 15 else {}
    in_work = said.get("in_work")
    known["in_work"] = [key for key in in_work if isinstance(key, str)] if isinstance(in_work, list) else []
    return {**known, "held": held, "failures": failures}


def _dict(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def is_alive(agent: UUID | str) -> bool:
    """Whether the agent gave a sign of life lately; nobody is called dead while Redis itself does not answer."""
    try:
        return heartbeat(agent) is not None
    except redis_client.RedisError:
        return True


def progress(keys: Mapping[str, UUID | str]) -> dict[str, Document]:
    """What agents say of the commands in work, given as {key: agent}: {key: {percent, text, bytes_done, bytes_total}}.

    An agent keeps all of its commands' progress in one hash: so it can be told how much room it takes.
    """
    if not keys:
        return {}
    try:
        with redis().pipeline(transaction=False) as pipeline:
            for key, agent in keys.items():
                pipeline.hget(f"mica:progress:{agent}", key)
            found = pipeline.execute()
    except redis_client.RedisError:
        return {}  # a job can be looked at without its progress
    return {key: said for key, text in zip(keys, found, strict=True) if (said := _document(text)) is not None}


def ask(agent: UUID | str, message: Message, timeout: float = 5.0) -> Document:
    """Ask a machine a read-only question and wait for the answer, at most `timeout` seconds.

    Raises Unavailable when it does not answer in time or is not able to now (`circuit_open` at once when it has not
    answered for a while), and Conflict when it refuses, with its code.
    """
    from cloud.jobs import circuit

    circuit.expect_closed(agent)
    query = Query(f"{agent}:{uuid.uuid4()}", message.kind, message.to_document(), time.time() + timeout)
    _send("agent.query", agent, query, expires=timeout)
    answer = redis().blpop([f"mica:answer:{query.id}"], timeout=timeout)
    if answer is None:
        if is_alive(agent):
            circuit.failed(agent, circuit.QUERY)
        raise Unavailable(
            _("The machine did not answer in time."),
            code="agent_silent",
            advice=_("Check its connection; it is asked again when you repeat the request."),
        )
    circuit.answered(agent)
    try:
        said = Answer.from_document(_document(answer[1]) or {})
    except (TypeError, ValueError):
        raise Unavailable(_("The machine's answer cannot be read."), code="answer_unreadable") from None
    if said.failure:
        kind = Unavailable if said.failure.nature in ("transient", "failed") else Conflict
        raise kind(said.failure.detail, code=said.failure.code)
    return said.body if isinstance(said.body, dict) else {}


def register_admission(admit: Callable[[UUID | str], None]) -> Callable[[UUID | str], None]:
    """Say who knows whether an agent may be given new work; called once, by `cloud.infra`."""
    _admissions[:] = [admit]
    return admit


def expect_admitted(agent: UUID | str) -> None:
    """Raise Problem when the agent gets no new work, with the reason."""
    for admit in _admissions:
        admit(agent)
