"""What a simulated machine may suffer: its drivers are slow and fail, its words are lost. Standard library only.

Declared as words, `slow=2s fail=0.1 nature=rejected lose=0.05 silent die=30s`, by a test or while it runs.
"""

import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from cloud.common.driver import Rejected, Transient

Nature = Literal["transient", "rejected"]
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one machine, or with all.

    `slow` is the mean of the seconds that each act takes besides (exponentially distributed), `fail` the share of acts
    that fail with `nature`, `lose` the share of answers that never leave. A `silent` machine neither hears nor speaks;
    one that should `die` is gone for so many seconds, then starts anew with nothing in its memory.
    """

    slow: float = 0.0
    fail: float = 0.0
    nature: Nature = "transient"
    lose: float = 0.0
    silent: bool = False
    die: float = 0.0

    @classmethod
    def of_words(cls, words: Iterable[str]) -> Self:
        """Read words as `slow=2s`, `fail=0.1`, `silent`, `die=30s`. Raises ValueError, which says what is wrong."""
        values: dict[str, Any] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if name not in {field.name for field in fields(cls)}:
                known = ", ".join(field.name for field in fields(cls))
                raise ValueError(f"{word!r} is no fault; faults are {known}")
            values[name] = _READERS[name](value if equals else _BARE.get(name, ""), word)
        return cls(**values)


def _seconds(text: str, word: str) -> float:
    found = _SECONDS.fullmatch(text)
    if found is None:
        raise ValueError(f"{word!r} needs a time, as slow=200ms or die=30s")
    return float(found[1]) * _UNITS[found[2]]


def _share(text: str, word: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{word!r} needs a share between 0 and 1, as fail=0.1")
    return share


def _nature(text: str, word: str) -> str:
    if text not in get_args(Nature):
        raise ValueError(f"{word!r} needs one of {', '.join(get_args(Nature))}")
    return text


def _switch(text: str, word: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{word!r} is said alone, or with yes or no")
    return text == "yes"


_READERS: dict[str, Callable[[str, str], Any]] = {
    "slow": _seconds,
    "die": _seconds,
    "fail": _share,
    "lose": _share,
    "nature": _nature,
    "silent": _switch,
}
_BARE = {"silent": "yes", "die": "10s"}


class Faults:
    """The faults of one machine as they are now; its simulated drivers `strike` before each act."""

    def __init__(self, fault: Fault | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.fault = fault or Fault()
        self._sleep = sleep
        self._chance = random.Random()  # noqa: S311 - chance, no secret

    def strike(self, act: str) -> None:
        """Take the time and fail as declared. Raises Transient or Rejected (`simulated_fault`)."""
        fault = self.fault
        if fault.slow:
            self._sleep(self._chance.expovariate(1.0 / fault.slow))
        if fault.fail and self._chance.random() < fault.fail:
            kind = Rejected if fault.nature == "rejected" else Transient
            raise kind("simulated_fault", f"The simulated machine failed to do {act}, as it was told to.")

    def loses(self) -> bool:
        """Whether the answer that is about to leave gets lost."""
        return bool(self.fault.lose) and self._chance.random() < self.fault.lose
