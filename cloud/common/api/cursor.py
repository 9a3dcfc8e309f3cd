"""The opaque mark of where a page ended: signed, so that it is read only as it was given."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.db.models import Field, Model, Q, QuerySet
from django.utils.translation import gettext as _

from cloud.common.errors import Invalid

_SALT = "mica.cursor"


@dataclass(frozen=True)
class Cursor:
    """The last row of a page: its value in the ordering column, as text, and its key."""

    ordering: str
    value: str
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
        """The cursor after this row."""
        field = _column(type(row), ordering)
        return cls(ordering, field.value_to_string(row), str(row.pk))

    def after(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that come after the cursor in its ordering; the key decides among equal values."""
        name, is_down = self.ordering.lstrip("-"), self.ordering.startswith("-")
        than = "lt" if is_down else "gt"
        value = _column(queryset.model, self.ordering).to_python(self.value)
        # The first term alone bounds the index scan; the second cuts the rows with an equal value.
        return queryset.filter(
            Q(**{f"{name}__{than}e": value}),
            Q(**{f"{name}__{than}": value}) | Q(**{f"pk__{than}": uuid.UUID(self.key)}),
        )


def order(queryset: QuerySet[Any], ordering: str) -> QuerySet[Any]:
    """The queryset in this ordering, made total by the key in the same direction."""
    return queryset.order_by(ordering, "-pk" if ordering.startswith("-") else "pk")


def _column(model: type[Model], ordering: str) -> "Field[Any, Any]":
    field = model._meta.get_field(ordering.lstrip("-"))
    assert isinstance(field, Field), f"{field} is no column"
    assert not field.null, f"{field} may be null: it cannot order a key-set"
    return field


def _bad() -> Invalid:
    return Invalid(
        _("The cursor is not one that this list gave."),
        code="bad_cursor",
        advice=_("Follow the `next` link of a page as it is, or begin again without a cursor."),
    )
