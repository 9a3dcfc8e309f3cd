"""Who fills Redis with more than is theirs: it is emptied again, and people are told.

Nothing in Redis is needed for the truth, so what is too much may go. A single value is bounded by Redis itself
(`proto-max-bulk-len`), what a connection makes it buffer by `maxmemory-clients`.
"""

import logging
from collections import Counter, defaultdict
from typing import Any

from django.db import transaction

from cloud.common.actor import platform
from cloud.events.models import Result
from cloud.events.services import audit
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent
from cloud.jobs import agents
from cloud.jobs.broker import QUEUE

log = logging.getLogger(__name__)

OWN_BYTES = 64 << 20
SHARED_BYTES = 256 << 20
ANSWERS_AT_ONCE = 1000
CONNECTIONS = 64
_ANSWER = "mica:answer:"


def watch() -> None:
    """Look at what agents hold in Redis, in a few round trips however many there are."""
    client = agents.redis()
    known = {str(agent.pk): agent for agent in Agent.objects.exclude(redis_password_hash="")}
    _own_keys(client, known)
    _answers(client, known)
    _shared(client)
    _connections(client, known)


def _own_keys(client: Any, known: dict[str, Agent]) -> None:
    keys = {uuid: redis_acl.own_keys(uuid) for uuid in known}
    with client.pipeline(transaction=False) as pipeline:
        for names in keys.values():
            for name in names:
                pipeline.memory_usage(name)
        sizes = iter(pipeline.execute())
    for uuid, names in keys.items():
        held = sum(next(sizes) or 0 for _ in names)
        if held > OWN_BYTES:
            client.unlink(*names)
            _tell(known[uuid], where="keys", held=held)


def _answers(client: Any, known: dict[str, Agent]) -> None:
    found = defaultdict(list)
    for name in client.scan_iter(match=f"{_ANSWER}*", count=5000):
        found[name.removeprefix(_ANSWER).partition(":")[0]].append(name)
    for uuid, names in found.items():
        if len(names) > ANSWERS_AT_ONCE:
            client.unlink(*names)
            _tell(known.get(uuid), where="answers", held=len(names))


def _shared(client: Any) -> None:
    """Of what agents have told, the oldest is kept: a flood is what came last, and who told the rest tells it again."""
    held = int(client.memory_usage(QUEUE) or 0)
    if held > SHARED_BYTES:
        length = client.llen(QUEUE)
        client.ltrim(QUEUE, -max(1, length * SHARED_BYTES // held // 2), -1)
        _tell(None, where=QUEUE, held=held)


def _connections(client: Any, known: dict[str, Agent]) -> None:
    users = Counter(connected["user"] for connected in client.client_list())
    for uuid, agent in known.items():
        user = redis_acl.user_name(uuid)
        if users[user] > CONNECTIONS:
            client.execute_command("CLIENT", "KILL", "USER", user)
            _tell(agent, where="connections", held=users[user])


@transaction.atomic
def _tell(agent: Agent | None, *, where: str, held: int) -> None:
    log.warning("agent %s fills Redis: %s, %d; it was emptied", agent.pk if agent else "unknown", where, held)
    detail = {"where": where, "held": held}
    audit.record("agent.flooding", actor=platform(), resource=agent, detail=detail, result=Result.REFUSED)
