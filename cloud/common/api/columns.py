"""What a list can be ordered and filtered by: every column that its rows show and that has an order or a value."""

from functools import cache
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from rest_framework import serializers

from cloud.common.api.serializers import SummarySerializer

_NO_ORDER = (models.JSONField, ArrayField, models.TextField, models.UUIDField, models.ForeignKey, models.BinaryField)
_NO_FILTER = (models.JSONField, ArrayField, models.TextField, models.BinaryField, models.DateTimeField)


@cache
def orderable(view: Any) -> dict[str, str]:
    """{name in the API: column}. A related resource in short is ordered by its name; long texts have no order."""
    annotated = view.queryset.query.annotations
    found = {}
    for name, field in _shown(view):
        source = field.source or name
        if isinstance(field, SummarySerializer):
            found[name] = source.replace(".", "__") + "__name"
        elif isinstance(field, serializers.Serializer | serializers.ListSerializer | serializers.SerializerMethodField):
            continue
        elif source in annotated or (
            (column := _column(view.queryset.model, source)) and not isinstance(column, _NO_ORDER)
        ):
            found[name] = source
    return found


@cache
def filterable(view: Any) -> tuple[str, ...]:
    """The names of the columns that take a value to look for; references by their uuid."""
    found = []
    for name, field in _shown(view):
        if isinstance(field, serializers.SerializerMethodField):
            continue
        source = field.source or name
        column = _column(view.queryset.model, source)
        if column and source == name and not column.primary_key and not isinstance(column, _NO_FILTER):
            found.append(name)
    return (*found, *(name for name in view.more_filters if name not in found))


class Filters:
    """The value of `filterset_fields` for a view that names none: all that it shows."""

    def __get__(self, view: Any, owner: Any) -> Any:
        return filterable(owner) if getattr(owner, "queryset", None) is not None else ()


class Orderings:
    """The value of `ordering_fields`: every order of what the list shows, with the column that it is by."""

    def __get__(self, view: Any, owner: Any) -> dict[str, str]:
        return orderable(owner) if getattr(owner, "queryset", None) is not None else {}


def _shown(view: Any) -> list[tuple[str, Any]]:
    serializer = view.list_serializer_class or view.serializer_class
    return [(name, field) for name, field in serializer().fields.items() if name != "url"]


def _column(model: Any, name: str) -> Any:
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, models.Field) and field.concrete and not field.many_to_many else None
