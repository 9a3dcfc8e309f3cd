"""Who has fallen silent: the rules of design §3, free of clocks and stores.

Nobody is called silent in the first minute after Redis started (its keys may be lost), nor while all are silent at once
(then it is more likely the way to Redis than every machine) before a whole minute has passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

HEARTBEAT_TTL_S = 15.0
SILENT_AFTER_S = 12.0
FRESH_S = 6.0
GRACE_S = 60.0


@dataclass(frozen=True)
class Look:
    """What Redis tells at one moment, all by its own clock.

    `ages` are seconds since each connected agent's last heartbeat, None for one whose heartbeat has expired;
    `newest_at` is when the last heartbeat of any of them came, as far as is remembered.
    """

    now: float
    redis_uptime_s: float
    ages: Mapping[UUID, float | None]
    newest_at: float


def silent(look: Look) -> set[UUID]:
    """Which of the agents are to be called disconnected now."""
    if look.redis_uptime_s < GRACE_S:
        return set()
    gone = {agent for agent, age in look.ages.items() if age is None or age >= SILENT_AFTER_S}
    anyone_fresh = any(age is not None and age < FRESH_S for age in look.ages.values())
    # One agent alone says nothing about the others: it is called silent like any single one.
    if len(look.ages) > 1 and not anyone_fresh and look.now - look.newest_at < GRACE_S:
        return set()
    return gone
