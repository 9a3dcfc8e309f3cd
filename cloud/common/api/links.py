"""Where the API shows a row: filled by the router as view sets are registered."""

from typing import Any

from django.db import models
from django.urls import reverse

_PREFIXES: dict[type[models.Model], str] = {}


def remember(model: type[models.Model], prefix: str) -> None:
    """Say under which list the rows of a model are; the first list of a model wins."""
    _PREFIXES.setdefault(model, prefix)


def url_of(row: Any) -> str:
    """The path of a row's detail, `/api/v1/zones/<uuid>/`; empty for a model without a list."""
    prefix = _PREFIXES.get(type(row))
    return reverse(f"api-{prefix}-detail", args=[row.pk]) if prefix else ""
