"""Chance in pauses: a thousand agents that lost the same thing must not come back in step."""

import random


def between(low_s: float, high_s: float) -> float:
    """A pause of at least `low_s` and at most `high_s` seconds."""
    return random.uniform(low_s, high_s)  # noqa: S311 - nobody gains by guessing it
