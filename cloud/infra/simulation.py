"""The agents of simulated machines: their uuids begin alike, and they share the simulator's one user in Redis.

One process speaks for all of them, so one user is what it can be held to: its rights are those of an agent, for every
uuid that begins so. An agent is simulated when its uuid says so; such a uuid is a uuid4 like any other.
"""

import uuid
from typing import Any

from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent

# The first eight of a uuid's hexadecimal digits.
PREFIX = "51a7e000"
PATTERN = f"{PREFIX}*"
_FIRST, _LAST = uuid.UUID(PREFIX + "0" * 24), uuid.UUID(PREFIX + "f" * 24)


def new_uuid() -> uuid.UUID:
    """A uuid4 for a simulated machine."""
    return uuid.UUID(PREFIX + uuid.uuid4().hex[len(PREFIX) :])


def among(rows: Any) -> Any:
    """Those of the rows (agents, hosts, image servers) that are simulated."""
    return rows.filter(pk__gte=_FIRST, pk__lte=_LAST)


def without(rows: Any) -> Any:
    """The rows that are not simulated."""
    return rows.exclude(pk__gte=_FIRST, pk__lte=_LAST)


def grant(client: Any, password_hash: str) -> None:
    """Let the simulator into Redis with this password alone."""
    redis_acl.grant(client, PATTERN, password_hash)


def renew(client: Any) -> None:
    """Let it in again after Redis forgot, when there is anything simulated."""
    known = among(Agent.objects.exclude(redis_password_hash="")).values_list("redis_password_hash", flat=True).first()
    if known:
        grant(client, known)


def revoke(client: Any) -> None:
    """Shut it out; absent is fine."""
    client.execute_command("ACL", "DELUSER", redis_acl.user_name(PATTERN))
