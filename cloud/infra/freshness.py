"""How old the words of agents are, by Redis' clock: the one that agents and control share."""

from cloud.jobs import agents

OLDEST_S = 30.0


def now() -> float:
    """Seconds since the epoch by Redis' clock."""
    seconds, microseconds = agents.redis().time()
    return float(seconds + microseconds / 1e6)


def is_stale(at: float) -> bool:
    """Whether a word said at this moment is too old to be acted on, as one that the broker delivers again.

    0 is the moment of agents that do not tell: their words are taken.
    """
    return bool(at) and now() - at > OLDEST_S
