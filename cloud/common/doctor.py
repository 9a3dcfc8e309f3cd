"""What the doctor compares: each app registers its checks here, and what its part of a machine must know to answer.

    @check("volume_leak", "leak", label=_("…"), mend=_("…"), keeper=THING_KEEPER, still=is_unknown)
    def volume_leak(look: Look) -> Iterator[Finding]: ...

A check that is mended on a machine names its `keeper` there; one that is mended in rows its `fix`; one that only a
person can settle names neither. `cloud.infra.services.doctor` asks the machines and runs the checks.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from cloud.common.actor import Actor
from cloud.common.errors import Text
from cloud.common.wire import Document

S = TypeVar("S")
Nature = Literal["leak", "drift", "missing"]
Wanted = tuple[str, str, int]


@dataclass(frozen=True)
class Finding:
    """One thing in which records and reality differ.

    `agent` and `host` are the uuid and name of the machine, empty where it is a matter of rows alone. `since` is how
    long it has been so, as far as is known. `thing` is what the mend needs to know. `is_mendable` is false where this
    one, unlike others of its kind, is for a person.
    """

    kind: str
    resource_type: str
    resource_uuid: str
    name: str
    detail: Text
    agent: str = ""
    host: str = ""
    since: datetime | None = None
    thing: Document = field(default_factory=dict)
    is_mendable: bool = True

    @property
    def id(self) -> str:
        """The same for the same thing each time it is found: `<kind>.<hash>`."""
        told = "\0".join((self.kind, self.agent, self.resource_type, self.resource_uuid, self.name))
        return f"{self.kind}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Report:
    """What a machine answered: its parts, as each app's inspector gave them."""

    agent: str
    name: str
    parts: Mapping[str, Document]


@dataclass(frozen=True)
class Look:
    """What one examination has before it.

    The machines in `reports` answered after `asked_at`, and the rows are read after that. `busy` are the uuids of what
    a job was at work on at any moment since then: there nothing is out of order. `settling` are the (agent, section)
    pairs that were not held at any moment since then. `patience_s` is how long something may take.
    """

    asked_at: datetime
    reports: Mapping[str, Report] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    settling: frozenset[tuple[str, str]] = frozenset()
    patience_s: float = 300.0
    _known: dict[Any, Any] = field(default_factory=dict, compare=False)

    def once(self, compute: Callable[["Look"], S]) -> S:
        """What several checks need, computed by the first of them."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        found: S = self._known[compute]
        return found

    def parts(self, name: str) -> Iterator[tuple[Report, Document]]:
        """The machines that told of this part, with what they told."""
        return ((report, report.parts[name]) for report in self.reports.values() if name in report.parts)

    def is_busy(self, *uuids: Any) -> bool:
        return any(str(uuid) in self.busy for uuid in uuids)


Looker = Callable[[Look], Iterable[Finding]]
Fixer = Callable[[Finding, Actor], Iterable[Wanted] | None]
L = TypeVar("L", bound=Looker)


@dataclass(frozen=True)
class Check:
    """A kind of finding. `mend` says in words what the fix does; empty where there is none.

    `fix(finding, actor)` mends rows in its own transaction, looks again under locks first, and returns the desired
    sections to wait for. `keeper` takes the thing out of the way on its machine; just before, in the job's transaction,
    `still(finding)` looks again, and `settle(finding)` follows up when it is done: it returns the rows, serialised,
    that go into the quarantine with the thing. `back` and `gone` are told of the thing when it is put back, and when
    its time in the quarantine is over. `is_kept` is false for what leaves nothing to put back, `is_note` marks what is
    listed and is not out of order.
    """

    kind: str
    nature: Nature
    label: Text
    look: Looker
    mend: Text = ""
    fix: Fixer | None = None
    keeper: str = ""
    still: Callable[[Finding], bool] = lambda finding: True
    settle: Callable[[Finding], list[Document]] = lambda finding: []
    back: Callable[[Document], None] = lambda thing: None
    gone: Callable[[Document], None] = lambda thing: None
    is_kept: bool = True
    is_note: bool = False


@dataclass(frozen=True)
class Kept:
    """Something in a machine's quarantine, as the machine tells it. `at` is seconds since the epoch."""

    id: str
    keeper: str
    resource_type: str
    name: str
    thing: Document
    at: float


CHECKS: dict[str, Check] = {}
Asker = Callable[[], dict[str, Document]]
ASKERS: dict[str, Asker] = {}
Lister = Callable[[Document], Iterable[Kept]]
LISTERS: dict[str, Lister] = {}
A = TypeVar("A", bound=Asker)


def check(kind: str, nature: Nature, *, label: Text, **more: Any) -> Callable[[L], L]:
    """Register a kind of finding and who looks for it; `more` are the further fields of Check."""

    def register(look: L) -> L:
        known = CHECKS.setdefault(kind, Check(kind, nature, label, look, **more))
        if known.look.__qualname__ != look.__qualname__:
            raise ValueError(f"the doctor's check {kind} is registered twice")
        return look

    return register


def asks(part: str) -> Callable[[A], A]:
    """Register what machines are asked for a part, `fn() -> {agent uuid: document}`; machines not named are not asked
    for it."""

    def register(asker: A) -> A:
        ASKERS[part] = asker
        return asker

    return register


def lists(part: str) -> Callable[[Lister], Lister]:
    """Register who reads from a machine's part what its quarantine holds."""

    def register(lister: Lister) -> Lister:
        LISTERS[part] = lister
        return lister

    return register


def ledger(
    kind: str,
    *,
    label: Text,
    resource_type: str,
    differences: Callable[[], Iterable[tuple[Any, str, Text]]],
    recompute: Callable[[Any], None],
    mend: Text,
) -> None:
    """Register a book that is kept by conditional updates and can be counted again.

    `differences` yields (key, name, what differs) for each entry that is not the sum of its rows; `recompute(key)`
    locks the entry, counts again and writes the sum, in the caller's transaction.
    """

    def look(_look: Look) -> Iterator[Finding]:
        for key, name, differing in differences():
            yield Finding(kind, resource_type, str(key), name, differing, thing={"key": str(key)})

    def fix(finding: Finding, actor: Actor) -> None:
        recompute(finding.thing["key"])

    look.__qualname__ = f"{look.__qualname__}.{kind}"
    check(kind, "drift", label=label, mend=mend, fix=fix)(look)
