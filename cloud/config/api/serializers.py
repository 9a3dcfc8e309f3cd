"""What the API shows of settings, and what it takes for them."""

from typing import Any, get_args

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer
from cloud.config.models import Override
from cloud.config.registry import Kind

VALUE = {
    "oneOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string", "maxLength": 4096}],
    "description": "As the setting's kind asks: a number, true or false, a text.",
}


@extend_schema_field(VALUE)
class ValueField(serializers.JSONField):
    """A value whose shape the setting's kind decides."""


class OverrideSerializer(serializers.ModelSerializer[Override]):
    value = ValueField(read_only=True)

    class Meta:
        model = Override
        fields = ["scope_type", "scope_uuid", "value", "updated_at"]
        read_only_fields = fields


class SettingSerializer(serializers.Serializer[Any]):
    """A declared setting with its global value and where that comes from."""

    name = serializers.CharField(read_only=True)
    label = serializers.CharField(read_only=True)  # type: ignore[assignment]
    help = serializers.CharField(read_only=True)
    kind = serializers.ChoiceField(get_args(Kind), read_only=True)
    value = ValueField(read_only=True)
    source = serializers.ChoiceField(["default", "global"], read_only=True)  # type: ignore[assignment]
    default = ValueField(read_only=True)
    minimum = serializers.FloatField(read_only=True, allow_null=True)
    maximum = serializers.FloatField(read_only=True, allow_null=True)
    choices = serializers.ListField(child=serializers.CharField(), read_only=True)
    scopes = serializers.ListField(child=serializers.CharField(), read_only=True)
    overrides = OverrideSerializer(many=True, read_only=True)
    notes = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="What follows from the change just made, if anything."
    )


@extend_schema_serializer(many=False)
class SettingListSerializer(serializers.Serializer[Any]):
    """All settings on one page, in the envelope that every list has."""

    results = SettingSerializer(many=True, read_only=True)
    next = serializers.CharField(read_only=True, allow_null=True)
    count = serializers.IntegerField(read_only=True)
    count_is_estimate = serializers.BooleanField(read_only=True)


class SettingChange(InputSerializer):
    value = ValueField()


class OverrideChange(InputSerializer):
    scope_type = serializers.CharField(max_length=64)
    scope_uuid = serializers.UUIDField()
    value = ValueField(help_text="As the setting's kind asks.")


class OverrideReset(InputSerializer):
    scope_type = serializers.CharField(max_length=64)
    scope_uuid = serializers.UUIDField()
