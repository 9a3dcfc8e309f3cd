"""The opaque mark of where a page ended: signed, so that it is read only as it was given.

Orders are PostgreSQL's own: what has no value comes last, and first in the descending order, which is its exact
reverse. The key decides among equal values.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

from django.core import signing
from django.db.models import Field, Model, Q, QuerySet
from django.utils.translation import gettext as _

from cloud.common.errors import Invalid

_SALT = "mica.cursor"


@dataclass(frozen=True)
class Cursor:
    """The last row of a page: its value in the ordering column, as text or None, and its key."""

    ordering: str
    value: str | None
    key: str

    def encode(self) -> str:
        return signing.dumps([self.ordering, self.value, self.key], salt=_SALT)

    @classmethod
    def decode(cls, text: str, ordering: str) -> "Cursor":
        """Raises Invalid (`bad_cursor`) for what was not given by `encode`, or for another ordering."""
        try:
            held, value, key = signing.loads(text, salt=_SALT)
        except (signing.BadSignature, ValueError, UnicodeError, TypeError):
            raise _bad() from None
        if held != ordering:
            raise _bad()
        return cls(held, value, key)

    @classmethod
    def of(cls, row: Model, ordering: str) -> "Cursor":
        """The cursor after this row. The column may be one of a related row (`cluster__name`) or an annotation."""
        value = reduce(_step, ordering.lstrip("-").split("__"), row)
        field = _column(type(row), ordering)
        if value is None:
            return cls(ordering, None, str(row.pk))
        text = field.value_to_string(cast(Model, _Holder(field, value))) if field else str(value)
        return cls(ordering, text, str(row.pk))

    def after(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that come after the cursor in its ordering."""
        name, is_down = self.ordering.lstrip("-"), self.ordering.startswith("-")
        than = "lt" if is_down else "gt"
        later = Q(**{f"pk__{than}": queryset.model._meta.pk.to_python(self.key)})
        if self.value is None:
            behind = Q(**{f"{name}__isnull": True}) & later
            return queryset.filter(behind | Q(**{f"{name}__isnull": False}) if is_down else behind)
        field = _column(queryset.model, self.ordering) or queryset.query.annotations[name].output_field
        value = field.to_python(self.value)
        # The first term alone bounds the index scan; the second cuts the rows with an equal value.
        bound, rest = Q(**{f"{name}__{than}e": value}), Q(**{f"{name}__{than}": value}) | later
        if is_down or not _may_be_null(queryset.model, name):
            return queryset.filter(bound, rest)
        return queryset.filter((bound & rest) | Q(**{f"{name}__isnull": True}))


class _Holder:
    """Stands in for a row that has this value in the field."""

    def __init__(self, field: "Field[Any, Any]", value: Any) -> None:
        setattr(self, field.attname, value)


def order(queryset: QuerySet[Any], ordering: str) -> QuerySet[Any]:
    """The queryset in this ordering, made total by the key in the same direction."""
    return queryset.order_by(ordering, "-pk" if ordering.startswith("-") else "pk")


def _step(row: Any, name: str) -> Any:
    return getattr(row, name, None) if row is not None else None


def _column(model: type[Model], ordering: str) -> "Field[Any, Any] | None":
    """The field that the ordering ends at; None for an annotation."""
    at: Any = model
    field: Any = None
    for name in ordering.lstrip("-").split("__"):
        field = next((each for each in at._meta.get_fields() if each.name == name), None)
        at = getattr(field, "related_model", None) or at
    return field if isinstance(field, Field) else None


def _may_be_null(model: type[Model], name: str) -> bool:
    at: Any = model
    for part in name.split("__"):
        field = next((each for each in at._meta.get_fields() if each.name == part), None)
        if field is None or getattr(field, "null", False):
            return True
        at = getattr(field, "related_model", None) or at
    return False


def _bad() -> Invalid:
    return Invalid(
        _("The cursor is not one that this list gave."),
        code="bad_cursor",
        advice=_("Follow the `next` link of a page as it is, or begin again without a cursor."),
    )
