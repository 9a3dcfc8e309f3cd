"""Many at once: the port between the door of the API and the jobs that keep each item's result.

`cloud.jobs` keeps; the API, which knows what a verb is on which list, performs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from cloud.common.actor import Actor

MOST = 1000


@dataclass(frozen=True)
class Wish:
    """What was asked of a list: its name in the API, and the body as it was sent."""

    prefix: str
    body: Any


@dataclass(frozen=True)
class Batch:
    """A verb for many rows of a list. `permission` names the act, `secrets` are params that are forgotten when all
    items have begun."""

    prefix: str
    verb: str
    permission: str
    model: str
    keys: Sequence[UUID]
    params: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """What `cloud.jobs` brings."""

    def begin(self, batch: Batch, *, actor: Actor) -> Any: ...
    def go_on(self, parent: UUID) -> None: ...
    def results(self, parent: UUID) -> list[dict[str, Any]]: ...
    def keep_wish(self, job: Any, wish: Wish) -> None: ...


@dataclass(frozen=True)
class Done:
    """What became of one item: the row's name, and the job that goes on with it (None: done at once)."""

    key: Any
    name: str
    job: Any


# (prefix, verb, key, params, actor) → what was done; raises what any request would be refused with.
Performer = Callable[[str, str, Any, dict[str, Any], Actor], Done]
_keepers: list[Keeper] = []
_performers: list[Performer] = []


def fill_keeper(keeper: Keeper) -> None:
    """Say who keeps batches; called once, by `cloud.jobs`."""
    _keepers[:] = [keeper]


def fill_performer(perform: Performer) -> None:
    """Say who performs a verb on one row; called once, by the API."""
    _performers[:] = [perform]


def keeper() -> Keeper:
    return _keepers[-1]


def perform(prefix: str, verb: str, key: Any, params: dict[str, Any], actor: Actor) -> Done:
    """Do a list's verb with one row, as a request of this actor would."""
    return _performers[-1](prefix, verb, key, params, actor)


def keep_wish(job: Any, wish: Wish) -> None:
    """Keep what was asked for with the parent job of several, so that those that fail can be tried again."""
    for each in _keepers:
        each.keep_wish(job, wish)
