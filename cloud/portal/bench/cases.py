"""Which requests a list is measured with: every filter, every kind of search, every ordering, from its declarations."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count
from django.db.models.functions import Now

from cloud.common.api.filters import FieldFilters

NOWHERE = ("qz", "no such thing")


@dataclass(frozen=True)
class Case:
    """A page to ask for. `group` is what it narrows by (`state`, `search: 2 letters`), for telling figures apart."""

    group: str
    query: tuple[tuple[str, str], ...]
    ordering: str

    def path(self, prefix: str) -> str:
        return f"/api/v1/{prefix}/?{urlencode([*self.query, ('ordering', self.ordering)])}"


def column(view: Any, ordering: str) -> str:
    """The ordering by the name of its column, which may be another than the API's."""
    names = view.ordering_fields
    word = ordering.removeprefix("-")
    found = names[word] if isinstance(names, dict) else word
    return f"-{found}" if ordering.startswith("-") else str(found)


def of(view: Any, rows: Any) -> list[Case]:
    """Every narrowing in every ordering. `rows` is the queryset of what the caller sees, to take values from."""
    orderings = [sign + name for name in view.ordering_fields for sign in ("", "-")]
    narrowings = [("all", ()), *_filters(view, rows), *_searches(view, rows)]
    return [
        Case(group, tuple(query), ordering) for (group, query), ordering in itertools.product(narrowings, orderings)
    ]


def _filters(view: Any, rows: Any) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Each filter with a common and a rare value, and neighbours together."""
    kind = FieldFilters().get_filterset_class(view, rows.model._default_manager.all())
    common: list[tuple[str, str]] = []
    for name, declared in (kind.base_filters if kind else {}).items():
        if declared.lookup_expr != "exact":
            if (middle := _middle(rows, declared.field_name)) is not None:
                yield name, ((name, middle.isoformat()),)
            continue
        values = _values(rows, declared.field_name)
        for value in dict.fromkeys(values):
            yield name, ((name, value),)
        common += [(name, value) for value in values[:1]]
    for pair in itertools.pairwise(common):
        yield "two filters", pair


def _values(rows: Any, column: str) -> list[str]:
    """The most and the least frequent value, as they stand in a query."""
    counted = rows.order_by().values_list(column).annotate(n=Count("pk")).exclude(**{column: None})
    by_number = [str(value) for value, _n in counted.order_by("-n", column) if value not in ("", None)]
    return [by_number[0], by_number[-1]] if by_number else []


def _middle(rows: Any, column: str) -> Any:
    found = rows.filter(**{f"{column}__lte": Now()}).order_by(column).values_list(column, flat=True)
    return found[found.count() // 2] if found else None


def _searches(view: Any, rows: Any) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    row = rows.order_by("pk").first()
    if row is None:
        return
    for column in view.search_fields:
        text = str(getattr(row, column))
        tail = text[len(text) // 2 :].strip() or text
        words = {"whole": text, "beginning": text[:5], "end": tail, "2 words": f"{text[:4]} {tail[:3]}"}
        words |= {f"{n} letters": text[:n] for n in (1, 2, 3)}
        for what, word in words.items():
            yield f"search: {what}", (("q", word),)
    for word in NOWHERE:
        yield "search: nowhere", (("q", word),)
    yield "search: uuid", (("q", str(row.pk)),)
