"""Where messages of agents enter control: nobody speaks in another's name, and nobody calls what is not for agents.

    @from_agents("infra.agent_hello", oldest_s=30)
    def agent_hello(document: Document) -> None: ...

makes a Celery task that runs only for documents signed by the agent they name (`cloud.common.signing`). What does not
fit is refused: logged, and kept as an event, at most once a minute for each agent.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import redis as redis_client
from django.db import transaction

from cloud.celery import app
from cloud.common import signing
from cloud.common.actor import platform
from cloud.common.wire import Document
from cloud.events.models import Result
from cloud.events.services import audit
from cloud.jobs import agents

log = logging.getLogger(__name__)

AHEAD_S = 600.0
OLDEST_ANSWER_S = 86400.0
TELL_EVERY_S = 60
UNKNOWN = "unknown"

# The agent's row (None when there is none) and the hashes of the passwords it may use.
KeysOf = Callable[[UUID], tuple[Any, Iterable[str]]]
ACCEPTED: set[str] = set()
_lookups: list[KeysOf] = []


def register_keys(lookup: KeysOf) -> KeysOf:
    """Say who knows the agents' keys; called once, by `cloud.infra`."""
    _lookups[:] = [lookup]
    return lookup


def from_agents(name: str, *, oldest_s: float = OLDEST_ANSWER_S) -> Callable[[Callable[[Document], None]], Any]:
    """Make the function the task `name`, for agents alone; words older than `oldest_s` seconds are dropped."""
    ACCEPTED.add(name)

    def register(function: Callable[[Document], None]) -> Any:
        def run(document: Any = None, signature: Any = None) -> None:
            if reason := _against(name, document, signature, oldest_s):
                if reason != "stale":
                    refuse(reason, name, document)
                return
            function(document)

        run.__name__, run.__module__, run.__doc__ = function.__name__, function.__module__, function.__doc__
        return app.task(name=name)(run)

    return register


def _against(name: str, document: Any, signature: Any, oldest_s: float) -> str:
    """Why the document is not taken, "" when it is."""
    if not isinstance(document, dict) or not isinstance(signature, dict):
        return "unsigned"
    row, hashes = _known(document.get("agent"))
    if row is None:
        return "unknown_agent"
    if signature.get("agent") != document["agent"]:
        return "other_name"
    if not signing.is_genuine(hashes, name, document, signature):
        return "not_genuine"
    age = time.time() - float(signature["at"])
    if age < -AHEAD_S:
        return "from_the_future"
    return "stale" if age > oldest_s else ""


def _known(agent: Any) -> tuple[Any, Iterable[str]]:
    try:
        uuid = UUID(agent)
    except (TypeError, ValueError, AttributeError):
        return None, ()
    # One spelling alone: what is compared later is the text.
    return _lookups[0](uuid) if _lookups and str(uuid) == agent else (None, ())


def refuse(reason: str, task: str, document: Any = None) -> None:
    """Tell people that a message was refused: in the log and as an event, once a minute for each agent it names."""
    claimed = document.get("agent") if isinstance(document, dict) else None
    row, _ = _known(claimed)
    name = str(row.pk) if row is not None else UNKNOWN
    try:
        times = agents.redis().incr(f"mica:refused:{name}:times")
        if not agents.redis().set(f"mica:refused:{name}", 1, nx=True, ex=TELL_EVERY_S):
            return
    except redis_client.RedisError:
        return
    log.warning("a message to %.64s in the name of agent %s was refused: %s (%d in all)", task, name, reason, times)
    with transaction.atomic():
        audit.record(
            "agent.message_refused",
            actor=platform(),
            resource=row,
            detail={"reason": reason, "task": str(task)[:64], "agent": name, "times": int(times)},
            result=Result.REFUSED,
        )
