"""Narrowing a list: `?q=` over texts, and filters by field. What is not known is refused, never ignored."""

import uuid
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from django_filters import rest_framework as django_filters
from django_filters import utils
from rest_framework.filters import BaseFilterBackend

from cloud.common.api.paging import PARAMETERS
from cloud.common.errors import Invalid
from cloud.common.search import has_search_text

_LONGEST = 255


class _TrueOrFalse(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        if value in (None, ""):
            return None
        word = str(value).lower()
        if word not in ("true", "false"):
            raise ValidationError(_("Give true or false."))
        return word == "true"


class TrueOrFalseFilter(django_filters.BooleanFilter):
    """Refuses what is neither `true` nor `false`; the framework's own boolean would take that for no filter at all."""

    field_class = _TrueOrFalse

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"widget": forms.TextInput, **options})


class AddressFilter(django_filters.CharFilter):
    """Refuses what is no IP address, which the database could not even look for."""

    field_class = forms.GenericIPAddressField


class WholeNumberFilter(django_filters.NumberFilter):
    """Refuses fractions and what no column of whole numbers holds."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"min_value": -(2**63), "max_value": 2**63 - 1, **options})

    def get_max_validator(self) -> None:
        return None


class ResourceFilterSet(django_filters.FilterSet):
    """Base of filter sets. A reference is filtered by uuid alone, so it tells nothing of rows the caller cannot see."""

    @classmethod
    def filter_for_lookup(cls, field: Any, lookup_type: str) -> Any:
        if isinstance(field, (models.ForeignKey, models.UUIDField)) and lookup_type == "exact":
            return django_filters.UUIDFilter, {}
        if isinstance(field, models.BooleanField) and lookup_type == "exact":
            return TrueOrFalseFilter, {}
        if isinstance(field, models.IntegerField) and not field.choices and lookup_type == "exact":
            return WholeNumberFilter, {}
        if isinstance(field, models.GenericIPAddressField) and lookup_type == "exact":
            return AddressFilter, {}
        return super().filter_for_lookup(field, lookup_type)


class FieldFilters(django_filters.DjangoFilterBackend):
    """Filters by the view's `filterset_fields` or `filterset_class`."""

    filterset_base = ResourceFilterSet

    def filter_queryset(self, request: Any, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        filterset = self.get_filterset(request, queryset, view)
        refuse_unknown(request, {"q", *PARAMETERS, *view.query_parameters, *(filterset.filters if filterset else ())})
        if filterset is None:
            return queryset
        if empty := [name for name in filterset.filters if request.query_params.get(name, "-").strip() == ""]:
            raise Invalid(
                _("A filter has no value: %(names)s.") % {"names": ", ".join(empty)},
                errors={name: [_("Give a value, or leave the filter out.")] for name in empty},
            )
        if not filterset.is_valid():
            raise utils.translate_validation(filterset.errors)
        narrowed: QuerySet[Any] = filterset.qs
        return narrowed


class TextSearch(BaseFilterBackend):
    """`?q=`: every word must occur in one of the view's `search_fields`; a whole uuid finds its row."""

    def filter_queryset(self, request: Any, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        text = request.query_params.get("q", "")
        if len(text) > _LONGEST or "\x00" in text:
            raise Invalid(
                _("This cannot be searched for."),
                code="bad_search",
                errors={"q": [_("Give at most %(longest)s characters without NUL.") % {"longest": _LONGEST}]},
            )
        condition = Q()
        for word in text.split():
            condition &= _anywhere(word, queryset.model, view.search_fields)
        return queryset.filter(condition | _as_key(text)) if text.strip() else queryset

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        names = ", ".join(view.search_fields)
        return [
            {
                "name": "q",
                "in": "query",
                "description": f"Words to look for in {names}; or a uuid.",
                "schema": {"type": "string", "maxLength": _LONGEST},
            }
        ]


def refuse_unknown(request: Any, known: set[str]) -> None:
    """Raise Invalid for a query parameter that nobody reads: a mistyped filter must not widen a list."""
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise Invalid(
            _("There is no such filter: %(names)s.") % {"names": ", ".join(unknown)},
            code="unknown_parameter",
            advice=_("Known: %(names)s.") % {"names": ", ".join(sorted(known))},
            errors={name: [_("There is no such filter.")] for name in unknown},
        )


def _anywhere(word: str, model: type[models.Model], columns: Any) -> Q:
    if has_search_text(model):
        return Q(search_text__holds=word)
    found = Q()
    for name in columns:
        found |= Q(**{f"{name}__icontains": word})
    return found


def _as_key(text: str) -> Q:
    try:
        return Q(pk=uuid.UUID(text.strip()))
    except ValueError:
        return Q()
