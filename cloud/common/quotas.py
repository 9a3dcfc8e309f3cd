"""What is counted for quotas: each app declares it beside the rows that it counts, `cloud.accounts` keeps the books."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

Amounts = Mapping[str, int]
Count = Callable[[Collection[UUID]], Mapping[UUID, Amounts]]


@dataclass(frozen=True)
class Quota:
    """One thing that is counted. `unit` is "bytes", or "" for things that are counted one by one."""

    name: str
    label: Any = field(compare=False)
    unit: str = ""


_DECLARED: dict[str, Quota] = {}
_counts: list[Count] = []


def declare(name: str, label: Any, unit: str = "") -> str:
    """Make known that something is counted: `declare("instances", _("Instances"))`; returns the name."""
    quota = Quota(name, label, unit)
    if _DECLARED.setdefault(name, quota) != quota:
        raise ValueError(f"the quota {name} is declared twice")
    return name


def declared() -> dict[str, Quota]:
    """Everything that is counted, by name, in the order of declaration."""
    return dict(_DECLARED)


def counted_by(count: Count) -> Count:
    """Register who counts the rows of projects (keys): {project: {name: number}}, one query however many they are."""
    if count not in _counts:
        _counts.append(count)
    return count


def counted(projects: Collection[UUID]) -> dict[UUID, Counter[str]]:
    """What the rows of these projects add up to now, by project."""
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    for count in _counts:
        for project, amounts in count(projects).items():
            found[project].update(amounts)
    return found


def by_project(rows: Iterable[Mapping[str, Any]], **columns: str) -> dict[UUID, Amounts]:
    """As `counted_by` wants it, from rows of `values("project").annotate(…)`; `columns` are the columns of quotas whose
    names the query could not use."""
    names = {column: name for name, column in columns.items()}
    return {
        row["project"]: {names.get(column, column): int(row[column]) for column in row if column != "project"}
        for row in rows
    }


def total(amounts: Iterable[Amounts]) -> dict[str, int]:
    """The sum of several amounts."""
    found = Counter[str]()
    for each in amounts:
        found.update(each)
    return dict(found)
