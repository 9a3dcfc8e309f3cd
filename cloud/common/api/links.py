"""Where the API shows a row: filled by the router as view sets are registered."""

from functools import cache
from typing import Any
from uuid import UUID

from django.db import models
from django.urls import reverse

_PREFIXES: dict[type[models.Model], str] = {}


def remember(model: type[models.Model], prefix: str) -> None:
    """Say under which list the rows of a model are; the first list of a model wins."""
    _PREFIXES.setdefault(model, prefix)


def url_of(row: Any) -> str:
    """The path of a row's detail, `/api/v1/zones/<uuid>/`; empty for a model without a list."""
    prefix = _PREFIXES.get(type(row))
    return f"{_list(prefix)}{row.pk}/" if prefix else ""


@cache
def _list(prefix: str) -> str:
    # Reversed once a list: for each row of a page it would be a quarter of what showing the row costs.
    return reverse(f"api-{prefix}-detail", args=[UUID(int=0)]).removesuffix(f"{UUID(int=0)}/")
