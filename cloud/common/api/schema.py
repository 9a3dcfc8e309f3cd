"""The OpenAPI document: what drf-spectacular cannot know by itself about our doors."""

import inspect
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from cloud.common.api import problems
from cloud.common.api.idempotency import HEADER
from cloud.common.api.serializers import ActAnswerSerializer, ProblemSerializer, RefusesUnknown
from cloud.common.api.views import ApiMixin

_ALWAYS = {"400": "Not valid.", "401": "Not signed in.", "403": "Not permitted."}
_ON_A_ROW = {"404": "It does not exist, or is not the caller's."}
_ON_A_WRITE = {
    "404": "Something named in the request does not exist, or is not the caller's.",
    "409": "Not possible now: its state, a running job, a lack of room.",
    "415": "Not JSON.",
}
_ON_A_KEY = {"422": "The Idempotency-Key was used for another request."}
_ON_A_DELETION = {"428": "The token of its preview is needed (`?dry_run=1`)."}
_OTHERWISE = {"default": "Any other problem."}
_IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER,
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    OpenApiParameter.HEADER,
    description="A fresh uuid: the same request sent again with the same key within 24 hours is carried out once.",
)
_FIELDS = OpenApiParameter(
    "fields",
    {"type": "string", "enum": ["acts"]},
    description="Further fields of the rows: what can be done with them.",
)


class Schema(AutoSchema):
    """Adds problem documents to every operation and `Idempotency-Key` to every POST; names operations plainly."""

    def get_override_parameters(self) -> list[Any]:
        parameters = super().get_override_parameters()
        if self._is_ours() and self.method != "GET":
            parameters = [*parameters, _IDEMPOTENCY_KEY]
        if getattr(self.view, "action", "") == "list" and getattr(self.view, "acts", None):
            parameters = [*parameters, _FIELDS]
        return parameters

    def get_operation_id(self) -> str:
        """`instances_list`, `instances_start`: the path's words and the action."""
        if not self._is_ours() or not hasattr(self.view, "action"):
            return str(super().get_operation_id())
        words = [word.replace("-", "_") for word in self._tokenize_path()]
        name = "update" if self.view.action == "partial_update" else self.view.action
        return "_".join([words[0], name])

    def get_summary(self) -> Any:
        action = getattr(self.view, "action", "")
        given = super().get_summary()
        if given or not self._is_ours():
            return given
        words = self._tokenize_path()[0].replace("-", " ")
        if action in ("list", "retrieve"):
            return f"List {words}" if action == "list" else f"Show one of the {words}"
        handler = getattr(self.view, action or self.method.lower(), None)
        spoken = (getattr(handler, "__doc__", None) or action.replace("_", " ").capitalize() or words).strip()
        return spoken.partition("\n")[0].partition(". ")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        # Docstrings of base classes and services speak to developers; a view's own one speaks of its list.
        if not self._is_ours():
            return str(super().get_description())
        return _own_doc(self.view) if getattr(self.view, "action", "list") == "list" else ""

    def get_tags(self) -> list[str]:
        return [self._tokenize_path()[0]] if self._tokenize_path() else ["api"]

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        if not self._is_ours():
            return bodies
        for status, meaning in self._problems().items():
            if status not in bodies:
                body = self._get_response_for_code(  # type: ignore[no-untyped-call]
                    ProblemSerializer, "4XX", [problems.MEDIA_TYPE], direction
                )
                bodies[status] = {**body, "description": meaning}
        return bodies

    def _map_serializer(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer(serializer, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if isinstance(schema, dict) and "description" in schema and not _own_doc(serializer):
            schema = {name: value for name, value in schema.items() if name != "description"}
        if direction == "response" and self._shows_acts(serializer):
            schema = {**schema, "properties": {**schema["properties"], "acts": self._acts()}}
        if isinstance(schema, dict) and isinstance(serializer, RefusesUnknown) and direction == "request":
            schema = {**schema, "additionalProperties": False}
        return schema

    def _shows_acts(self, serializer: Any) -> bool:
        view = self.view
        shown = (getattr(view, "serializer_class", None), getattr(view, "list_serializer_class", None))
        return bool(getattr(view, "acts", None)) and type(serializer) in shown

    def _acts(self) -> dict[str, Any]:
        """What `acts` holds: an answer for each act of the list's rows."""
        acts: dict[str, Any] = getattr(self.view, "acts", {})
        one = self.resolve_serializer(ActAnswerSerializer, "response").ref
        return {
            "type": "object",
            "readOnly": True,
            "description": "What can be done with it now, and why not; in lists with `?fields=acts`.",
            "properties": dict.fromkeys(acts, one),
        }

    def _problems(self) -> dict[str, str]:
        found = dict(_ALWAYS)
        if "{" in self.path:
            found |= _ON_A_ROW
        if self.method != "GET":
            found = _ON_A_WRITE | found
        if self.method != "GET":
            found |= _ON_A_KEY
        if self.method == "DELETE":
            found |= _ON_A_DELETION
        return dict(sorted(found.items())) | _OTHERWISE

    def _is_ours(self) -> bool:
        return isinstance(self.view, ApiMixin)


def _own_doc(thing: Any) -> str:
    model = thing if isinstance(thing, type) else type(thing)
    return inspect.cleandoc(model.__dict__.get("__doc__") or "")
