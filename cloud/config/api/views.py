"""Settings: those declared in code, with their values."""

from collections.abc import Sequence
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from cloud.common.api.filters import refuse_unknown
from cloud.common.api.views import ApiMixin
from cloud.config import registry, services
from cloud.config.api import serializers
from cloud.config.models import Override

_NAME = OpenApiParameter("name", {"type": "string", "pattern": "^[a-z0-9_.]+$"}, OpenApiParameter.PATH)


class SettingViewSet(ApiMixin, ViewSet):
    """Settings are known by name: `/api/v1/settings/host.reserved_memory/`."""

    lookup_field = "name"
    lookup_value_regex = r"[a-z0-9_.]+"
    serializer_class = serializers.SettingSerializer
    pagination_class: ClassVar[Any] = None

    @extend_schema(
        summary="All settings",
        parameters=[OpenApiParameter("q", str, description="A part of the name.")],
        responses=serializers.SettingListSerializer,
    )
    def list(self, request: Any) -> Response:
        self.actor.require("setting.view")
        refuse_unknown(request, {"q"})
        part = request.query_params.get("q", "").lower()
        shown = [document for document in _documents() if part in document["name"]]
        body = serializers.SettingSerializer(shown, many=True).data
        return Response({"results": body, "next": None, "count": len(body), "count_is_estimate": False})

    @extend_schema(summary="One setting", parameters=[_NAME], responses=serializers.SettingSerializer)
    def retrieve(self, request: Any, name: str) -> Response:
        self.actor.require("setting.view")
        return self._shown(name)

    @extend_schema(
        summary="Give a setting its global value",
        parameters=[_NAME],
        request=serializers.SettingChange,
        responses=serializers.SettingSerializer,
    )
    def partial_update(self, request: Any, name: str) -> Response:
        self._admit_change(name)
        row = services.change(name, actor=self.actor, **_validated(serializers.SettingChange, request))
        return self._shown(name, row.notes)

    @extend_schema(summary="Go back to the default", parameters=[_NAME], responses={204: None})
    def destroy(self, request: Any, name: str) -> Response:
        services.reset(name, actor=self.actor)
        return Response(status=204)

    @extend_schema(
        summary="Give a setting another value for one resource",
        parameters=[_NAME],
        request=serializers.OverrideChange,
        responses={200: serializers.SettingSerializer},
    )
    @action(detail=True, methods=["post"])
    def override(self, request: Any, name: str) -> Response:
        self._admit_change(name)
        row = services.change(name, actor=self.actor, **_validated(serializers.OverrideChange, request))
        return self._shown(name, row.notes)

    @extend_schema(
        summary="Take the value for one resource back",
        parameters=[_NAME],
        request=serializers.OverrideReset,
        responses={200: serializers.SettingSerializer},
    )
    @action(detail=True, methods=["post"], url_path="reset-override")
    def reset_override(self, request: Any, name: str) -> Response:
        self._admit_change(name)
        notes = services.reset(name, actor=self.actor, **_validated(serializers.OverrideReset, request))
        return self._shown(name, notes)

    def _admit_change(self, name: str) -> None:
        """Who may, and what there is, come before the input is looked at."""
        self.actor.require("setting.change")
        registry.find(name)

    def _shown(self, name: str, notes: Sequence[Any] = ()) -> Response:
        document = _documents(registry.find(name).name)[0] | {"notes": [str(note) for note in notes]}
        return Response(serializers.SettingSerializer(document).data)


def _validated(takes: Any, request: Any) -> dict[str, Any]:
    serializer = takes(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _documents(name: str = "") -> list[dict[str, Any]]:
    """The settings, or the one of this name, as they are shown. Two queries."""
    scoped: dict[str, list[Override]] = {}
    for row in Override.objects.exclude(scope_uuid=None):
        scoped.setdefault(row.name, []).append(row)
    return [
        {
            "name": setting.name,
            "label": str(setting.label),
            "help": str(setting.help),
            "kind": setting.kind,
            "value": value,
            "source": source,
            "default": setting.default,
            "minimum": setting.minimum,
            "maximum": setting.maximum,
            "choices": setting.choices,
            "scopes": setting.scopes,
            "overrides": scoped.get(setting.name, []),
            "notes": [],
        }
        for setting, value, source in services.effective()
        if not name or setting.name == name
    ]
