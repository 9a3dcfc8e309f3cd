"""A breaker for each machine that lives but does not answer: who asks it is refused at once instead of waiting.

Three failures in a row open it, for ten seconds at first and twice as long with each further one, five minutes at most.
When that time is over one question goes through: its answer closes the breaker, its silence opens it again. All of it
lies in Redis and may be lost.
"""

import time
from uuid import UUID

import redis as redis_client
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Unavailable
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.jobs import agents

FAILURES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
REMEMBER_S = 3600
PROBE_S = 10
# Agents whose breaker is open, by when it closes half.
_OPEN = "mica:circuits"
QUERY, COMMAND = "query_unanswered", "command_unanswered"
REASONS = {
    QUERY: _("It lives, but does not answer questions."),
    COMMAND: _("It lives, but does not finish what it is asked to do."),
}


def expect_closed(agent: UUID | str) -> None:
    """Raise Unavailable `circuit_open` while the machine is left alone; one caller at a time may try when that ends."""
    try:
        held = agents.redis().hgetall(_name(agent))
        until = float(held.get("until", 0))
        if not until or (until <= time.time() and agents.redis().set(f"{_name(agent)}:probe", 1, nx=True, ex=PROBE_S)):
            return
    except (redis_client.RedisError, ValueError):
        return
    wait_s = max(1, round(until - time.time()))
    raise Unavailable(
        filled(
            _("The machine did not answer %(failures)s times in a row; it is left alone for %(seconds)d s."),
            failures=held["failures"],
            seconds=wait_s,
        ),
        code="circuit_open",
        advice=_("Look at its load and at its agent's log. It is asked again by itself."),
        retry_after_s=wait_s,
    )


def failed(agent: UUID | str, reason: str) -> None:
    """The machine did not answer. `reason` is one of REASONS."""
    try:
        failures = agents.redis().hincrby(_name(agent), "failures", 1)
        changes: dict[str, str | float] = {"reason": reason}
        if failures >= FAILURES:
            now, pause_s = time.time(), min(FIRST_PAUSE_S * 2 ** (failures - FAILURES), LONGEST_PAUSE_S)
            agents.redis().hsetnx(_name(agent), "opened_at", now)
            agents.redis().zadd(_OPEN, {str(agent): now + pause_s})
            changes["until"] = now + pause_s
        with agents.redis().pipeline() as pipeline:
            pipeline.hset(_name(agent), mapping=changes).expire(_name(agent), REMEMBER_S)
            pipeline.delete(f"{_name(agent)}:probe").execute()
    except redis_client.RedisError:
        return


def answered(agent: UUID | str) -> None:
    """The machine answered: whatever it did not before is forgotten."""
    try:
        if agents.redis().delete(_name(agent), f"{_name(agent)}:probe"):
            agents.redis().zrem(_OPEN, str(agent))
    except redis_client.RedisError:
        return


def opened() -> dict[str, Document]:
    """The machines that are left alone or on probation: {agent: {failures, reason, opened_at, until}}, times as seconds
    since the epoch."""
    try:
        names = agents.redis().zrange(_OPEN, 0, -1)
        if not names:
            return {}
        with agents.redis().pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(_name(name))
            found = dict(zip(names, pipeline.execute(), strict=True))
        if gone := [name for name, held in found.items() if "until" not in held]:
            agents.redis().zrem(_OPEN, *gone)
    except redis_client.RedisError:
        return {}
    return {
        name: {
            "failures": int(held["failures"]),
            "reason": held["reason"],
            "opened_at": float(held["opened_at"]),
            "until": float(held["until"]),
        }
        for name, held in found.items()
        if "until" in held
    }


def _name(agent: UUID | str) -> str:
    return f"mica:circuit:{agent}"
