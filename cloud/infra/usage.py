"""Who uses a piece of infrastructure: apps above say so here, so that nothing is deleted from under them.

@usage.register
def instances(resource: Resource) -> list[Use]:
    return [usage.count("instance", Instance.objects.filter(host=resource))] if isinstance(resource, Host) else []
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict

SHOWN = 5


@dataclass(frozen=True)
class Use:
    """So many resources of a kind stand on the one asked about; `names` are a few of them, for the message."""

    kind: str
    count: int
    names: tuple[str, ...] = ()


Question = Callable[[Any], list[Use]]
Q = TypeVar("Q", bound=Question)
_questions: list[Question] = []


def register(question: Q) -> Q:
    """Register who answers what stands on a zone, cluster, host or agent. Asked inside the deleting transaction."""
    if question not in _questions:
        _questions.append(question)
    return question


def count(kind: str, rows: QuerySet[Any]) -> Use:
    """The use that these rows make, with the names of the first few."""
    return Use(kind, rows.count(), tuple(str(row) for row in rows[:SHOWN]))


def of(resource: Any) -> list[Use]:
    """Everything that uses the resource, counts above zero only."""
    return [use for question in _questions for use in question(resource) if use.count]


def expect_none(resource: Any) -> None:
    """Raise Conflict, with what uses it, unless nothing does."""
    uses = of(resource)
    if uses:
        raise Conflict(
            _("%(name)s is in use: %(uses)s.")
            % {"name": resource, "uses": ", ".join(f"{use.count} × {use.kind}" for use in uses)},
            code="in_use",
            advice=_("Delete or move what uses it first."),
            used_by=[{"kind": use.kind, "count": use.count, "names": list(use.names)} for use in uses],
        )
