"""Which rows stand on a page, found as cheaply as the database can.

The keys of a page are picked in a query of their own, on the bare table: whatever a list joins, adds or makes of a row
costs the rows shown and no others.
"""

import json
from typing import Any

from django.db import connections
from django.db.models import F, QuerySet, Value
from django.db.models.expressions import OrderBy
from django.db.models.functions import Coalesce

from cloud.common.api.cursor import Cursor, order

EXACT_UP_TO = 50_000
# So few matches are sorted once found. Of more, some come soon in any ordering's own index; of few, perhaps only at its
# far end, and the planner has been seen to walk it to there.
FEW = 5_000
# What is searched for stands in no ordering's index beside the order, and often together: names that begin alike.
FEW_IN_A_SEARCH = 20_000


def page(
    queryset: QuerySet[Any], ordering: str, cursor: Cursor | None, limit: int, matches: int, *, is_search: bool = False
) -> list[Any]:
    """At most `limit` rows after the cursor. `matches` is how many the queryset has, or about how many."""
    if not matches:
        return []
    ordered = order(queryset, ordering)
    rows = cursor.after(ordered) if cursor else ordered
    is_few = matches <= (FEW_IN_A_SEARCH if is_search else FEW)
    picked = (_sorted_when_found(rows) if is_few else rows).values("pk")[:limit]
    return list(ordered.filter(pk__in=picked))


def count(queryset: QuerySet[Any]) -> tuple[int, bool]:
    """How many rows match, and whether that is an estimate. One query, or two where it is."""
    # No column is asked for, so an index that knows the condition is enough.
    plain = queryset.order_by().annotate(_one=Value(1)).values("_one")
    exact = plain[: EXACT_UP_TO + 1].count()
    if exact <= EXACT_UP_TO:
        return exact, False
    return max(_estimate(plain), EXACT_UP_TO + 1), True


def _estimate(queryset: QuerySet[Any]) -> int:
    sql, parameters = queryset.query.sql_with_params()
    with connections[queryset.db].cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
        plan = cursor.fetchone()[0]
    return int((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])


def _sorted_when_found(ordered: QuerySet[Any]) -> QuerySet[Any]:
    """The same order by an expression that no index has: the rows are found by their condition."""
    first, *others = ordered.query.order_by
    by = first if isinstance(first, OrderBy) else _ordering(str(first))
    wrapped = by.copy()
    wrapped.expression = Coalesce(by.expression, by.expression)
    return ordered.order_by(wrapped, *others)


def _ordering(name: str) -> OrderBy:
    return OrderBy(F(name.lstrip("-")), descending=name.startswith("-"))
