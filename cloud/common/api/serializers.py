"""Bases of serializers: what goes out of a resource, and what comes in for an act."""

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from cloud.common import batches
from cloud.common.api.links import url_of


class RefusesUnknown:
    """Refuses fields that the serializer does not take, with the code `unknown_field`."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            taken = {name for name, field in self.fields.items() if not field.read_only}  # type: ignore[attr-defined]
            unknown = sorted(set(data) - taken)
            if unknown:
                message = serializers.ErrorDetail(str(_("There is no such field.")), code="unknown_field")
                raise serializers.ValidationError({name: [message] for name in unknown})
        return super().to_internal_value(data)  # type: ignore[misc]


class InputSerializer(RefusesUnknown, serializers.Serializer[Any]):
    """What a caller sends for an act. Its validated data are the keyword arguments of the service.

    JSON knows texts, numbers and booleans apart, and so do we: the framework would take one for another. `is_json` is
    false for what comes in a query string, where all are texts.
    """

    is_json: ClassVar[bool] = True

    def to_internal_value(self, data: Any) -> Any:
        validated = super().to_internal_value(data)
        given = data.items() if self.is_json else ()
        errors = {name: found for name, value in given if (found := _against_json(self.fields[name], value))}
        if errors:
            raise serializers.ValidationError(errors)
        return validated


def _against_json(field: Any, value: Any) -> Any:
    """The errors of a value, and of the values in a list, whose JSON type is not the field's; or of a text that is too
    long as it was sent, before white space was cut from it."""
    match field:
        case serializers.ListField():
            items = value if isinstance(value, list) else []
            found = {index: error for index, item in enumerate(items) if (error := _against_json(field.child, item))}
            return found or None
        case serializers.BooleanField():
            is_right = isinstance(value, bool)
        case serializers.IntegerField() | serializers.FloatField():
            is_right = isinstance(value, (int, float)) and not isinstance(value, bool)
        case serializers.CharField() if isinstance(value, str) and len(value) > (field.max_length or len(value)):
            return [str(field.error_messages["max_length"]).format(max_length=field.max_length)]
        case serializers.CharField() | serializers.ChoiceField():
            is_right = isinstance(value, str)
        case _:
            return None
    return None if is_right or value is None else [_("This is of another JSON type than this field.")]


class NoInput(InputSerializer):
    """For acts that take nothing."""


class RenameInput(InputSerializer):
    """The change that every resource takes."""

    name = serializers.CharField(max_length=255, required=False)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)


class Reference(serializers.PrimaryKeyRelatedField[Any]):
    """A resource named by its uuid, among those that the caller may see: `Reference(Zone)` or `Reference(queryset)`.

    In validated data it is the row itself. What is not there and what is not the caller's get the same answer.
    """

    default_error_messages = {"does_not_exist": _("There is no such resource.")}

    def __init__(self, of: Any = None, **options: Any) -> None:
        if of is not None:
            options["queryset"] = of if isinstance(of, models.QuerySet) else of._default_manager.all()
        super().__init__(pk_field=serializers.UUIDField(), **options)

    def __class_getitem__(cls, _item: Any) -> Any:
        return cls

    def get_queryset(self) -> Any:
        queryset: Any = super().get_queryset()
        request = self.context.get("request")
        return queryset.visible_to(request.actor) if request is not None else queryset.none()


@extend_schema_field({"type": "string", "format": "uri-reference"})
class UrlField(serializers.Field[Any, Any, str, Any]):
    """Where the API shows this row."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"source": "*", "read_only": True, **options})

    def to_representation(self, value: Any) -> str:
        return url_of(value)


class ResourceSerializer(RefusesUnknown, serializers.ModelSerializer[Any]):
    """What every resource shows. A subclass names its model and adds fields:

        class Meta(ResourceSerializer.Meta):
            model = Zone
            fields = [*ResourceSerializer.Meta.fields, "clusters"]

    All fields are read-only: what comes in is an InputSerializer's matter.
    """

    url = UrlField()

    class Meta:
        model: Any = None
        fields: list[str] = ["uuid", "name", "description", "project", "created_at", "updated_at", "url"]

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        for field in fields.values():
            field.read_only, field.required = True, False
        return fields

    def build_relational_field(self, field_name: str, relation_info: Any) -> Any:
        # A key of a related row, without a query for the row and without its unscoped queryset.
        field_class, options = super().build_relational_field(field_name, relation_info)
        if issubclass(field_class, serializers.PrimaryKeyRelatedField):
            options.pop("queryset", None)
            options["read_only"] = True
        return field_class, options


class SummarySerializer(serializers.Serializer[Any]):
    """A related resource in short, for use inside another: the view's queryset selects it with `select_related`."""

    uuid = serializers.UUIDField(read_only=True)
    name = serializers.CharField(read_only=True)
    url = UrlField()


class ActAnswerSerializer(serializers.Serializer[Any]):
    """Whether an act is possible now; where not, why, and what to do about it."""

    allowed = serializers.BooleanField(read_only=True)
    code = serializers.CharField(read_only=True, help_text="What the act would be refused with; empty when allowed.")
    reason = serializers.CharField(read_only=True)
    advice = serializers.CharField(read_only=True)
    job = serializers.CharField(read_only=True, allow_null=True, help_text="The job in the way, where one is.")


class EffectSerializer(serializers.Serializer[Any]):
    """What a deletion does to the resources of one kind."""

    kind = serializers.CharField(read_only=True)
    effect = serializers.ChoiceField(
        ["blocks", "lost", "recycled", "detaches", "stays", "released", "unknown"], read_only=True
    )
    count = serializers.IntegerField(read_only=True)
    text = serializers.CharField(read_only=True)
    sample = SummarySerializer(many=True, read_only=True, help_text="A few of them that the caller may see.")


class PreviewedSerializer(ActAnswerSerializer):
    uuid = serializers.UUIDField(read_only=True)
    name = serializers.CharField(read_only=True)
    url = serializers.CharField(read_only=True)


class PreviewSerializer(serializers.Serializer[Any]):
    """What a deletion would do. `token` goes into `X-Preview-Token` of the deed."""

    effects = EffectSerializer(many=True, read_only=True)
    results = PreviewedSerializer(many=True, read_only=True, help_text="Whether each can be deleted now.")
    is_possible = serializers.BooleanField(read_only=True, help_text="Nothing stands against it now.")
    token = serializers.CharField(read_only=True)
    token_ttl_s = serializers.IntegerField(read_only=True)


class BatchInputSerializer(InputSerializer):
    """One verb for many resources of the list; `params` are what the verb takes."""

    uuids = serializers.ListField(child=serializers.UUIDField(), min_length=1, max_length=batches.MOST)
    params = serializers.DictField(required=False)


ERROR = {
    "type": ["object", "null"],
    "description": "Why it failed: code, title, detail, advice.",
    "properties": {name: {"type": "string"} for name in ("code", "title", "detail", "advice")},
    "additionalProperties": True,
}


@extend_schema_field(ERROR)
class ErrorField(serializers.JSONField):
    """Why something failed, as it was kept."""


class ItemSerializer(serializers.Serializer[Any]):
    """What became of one resource of many. `job` is what goes on with it: null when it was done or refused at once."""

    uuid = serializers.UUIDField(read_only=True, allow_null=True, help_text="Null for what was never made.")
    name = serializers.CharField(read_only=True)
    url = serializers.CharField(read_only=True)
    state = serializers.CharField(
        read_only=True, help_text="`waiting` until begun, `refused` when it was not, else as a job's."
    )
    error = ErrorField(read_only=True)
    job = serializers.CharField(read_only=True, allow_null=True)


@extend_schema_serializer(many=False)
class ItemListSerializer(serializers.Serializer[Any]):
    """A page of what became of each."""

    results = ItemSerializer(many=True, read_only=True)
    next = serializers.CharField(read_only=True, allow_null=True)
    count = serializers.IntegerField(read_only=True)
    count_is_estimate = serializers.BooleanField(read_only=True)


class BatchAcceptedSerializer(serializers.Serializer[Any]):
    """The parent job of many, and what became of each so far."""

    job = serializers.CharField(read_only=True)
    results = ItemSerializer(many=True, read_only=True)


class AcceptedSerializer(serializers.Serializer[Any]):
    """An act that goes on in a job: follow it at `job`, which is null when the act was done at once."""

    job = UrlField(allow_null=True)
    results = SummarySerializer(many=True, read_only=True)


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem document (RFC 9457)."""

    type = serializers.CharField(help_text="A URN made of the code.")
    title = serializers.CharField(help_text="What kind of problem this is.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="What is wrong here and why.")
    code = serializers.CharField(help_text="Stable, lower snake case: for programs.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()), help_text="Messages by field, with dotted paths."
    )
    advice = serializers.CharField(allow_blank=True, help_text="What to do about it.")
    request_id = serializers.CharField(allow_blank=True, help_text="Names this request in logs and audit records.")
