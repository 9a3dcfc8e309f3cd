"""Deleting a row that others may lean on."""

from collections import Counter
from typing import Any

from django.db import models
from django.db.models import ProtectedError
from django.utils.translation import gettext as _

from cloud.common.errors import Conflict
from cloud.common.resources import kind_of


def delete(row: models.Model) -> None:
    """Delete the row. Raises Conflict (`in_use`), saying how many of what lean on it, when it cannot go."""
    try:
        row.delete()
    except ProtectedError as error:
        raise in_use(error) from error


def in_use(error: ProtectedError) -> Conflict:
    """The conflict that a protected row means: `uses` counts what leans on it by kind."""
    uses: dict[str, Any] = dict(Counter(kind_of(row) for row in error.protected_objects))
    return Conflict(
        _("This is still in use: %(uses)s.") % {"uses": ", ".join(f"{count} {kind}" for kind, count in uses.items())},
        code="in_use",
        advice=_("Delete what uses it first."),
        uses=uses,
    )
