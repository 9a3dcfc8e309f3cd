"""Lists by key-set: a page costs the same however deep it lies."""

from typing import Any
from urllib.parse import urlencode

from django.utils.translation import gettext as _
from rest_framework.pagination import BasePagination
from rest_framework.response import Response

from cloud.common.api import pages
from cloud.common.api.cursor import Cursor
from cloud.common.api.pages import count
from cloud.common.errors import Invalid

DEFAULT_LIMIT, LARGEST_LIMIT = 50, 500
PARAMETERS = ("limit", "cursor", "ordering")


class KeySetPaging(BasePagination):
    """`?limit=1…500`, `?ordering=` one of the view's `ordering_fields` or `-` that, `?cursor=` from a `next` link.

    The count is exact up to 50,000 rows, above that the planner's estimate.
    """

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> list[Any]:
        self.request = request
        limit = _limit(request.query_params.get("limit"))
        ordering = _ordering(request.query_params.get("ordering"), view)
        mark = request.query_params.get("cursor")
        cursor = Cursor.decode(mark, ordering) if mark is not None else None
        self.count, self.count_is_estimate = count(queryset)
        is_search = bool(request.query_params.get("q"))
        page = pages.page(queryset, ordering, cursor, limit + 1, self.count, is_search=is_search)
        self.next = Cursor.of(page[limit - 1], ordering).encode() if len(page) > limit else None
        return page[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        return Response(
            {
                "results": data,
                "next": self._next_url(),
                "count": self.count,
                "count_is_estimate": self.count_is_estimate,
            }
        )

    def _next_url(self) -> str | None:
        if self.next is None:
            return None
        parameters = [(name, value) for name, value in self.request.query_params.lists() if name != "cursor"]
        return f"{self.request.path}?{urlencode([*parameters, ('cursor', self.next)], doseq=True)}"

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next", "count", "count_is_estimate"],
            "properties": {
                "results": schema,
                "next": {
                    "type": ["string", "null"],
                    "format": "uri-reference",
                    "description": "The next page; null on the last one.",
                },
                "count": {"type": "integer", "minimum": 0, "description": "Rows that match, on all pages."},
                "count_is_estimate": {"type": "boolean", "description": "True above 50,000 rows."},
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        names = [name for field in view.ordering_fields for name in (field, f"-{field}")]
        return [
            {
                "name": "limit",
                "in": "query",
                "description": "Rows a page.",
                "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": DEFAULT_LIMIT},
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "Where the page before ended: taken from its `next`, never made up.",
                "schema": {"type": "string"},
            },
            {
                "name": "ordering",
                "in": "query",
                "description": "The column to order by, descending with a minus sign.",
                "schema": {"type": "string", "enum": names, "default": view.default_ordering},
            },
        ]


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LARGEST_LIMIT:
        return int(text)
    reason = _("Give a whole number from 1 to %(largest)s.") % {"largest": LARGEST_LIMIT}
    raise Invalid(_("The limit is not usable."), code="bad_limit", errors={"limit": [reason]})


def _ordering(text: str | None, view: Any) -> str:
    """The column to order by, with its direction; the API's name of it may be another."""
    asked = str(view.default_ordering) if text is None else text
    column = view.ordering_fields.get(asked.removeprefix("-"))
    if column is not None:
        return ("-" if asked.startswith("-") else "") + str(column)
    reason = _("Give one of: %(names)s; with a minus sign for descending.") % {"names": ", ".join(view.ordering_fields)}
    raise Invalid(_("The list cannot be ordered this way."), code="bad_ordering", errors={"ordering": [reason]})
