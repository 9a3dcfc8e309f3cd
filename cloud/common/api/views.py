"""Bases of API views: JSON in and out, problems, actors, writes that are carried out once."""

import json
from functools import partial
from typing import Any, ClassVar

from django.utils.translation import gettext as _
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from cloud.common.actor import Actor
from cloud.common.api import idempotency, problems
from cloud.common.api.parsing import JsonOnly, JsonParser
from cloud.common.api.permissions import SignedIn
from cloud.common.errors import Missing

_WRITES = ("POST", "PUT", "PATCH", "DELETE")


class ApiMixin:
    """What all API views share. `query_parameters` are those a view reads beside its filters."""

    parser_classes: Any = [JsonParser]
    renderer_classes: Any = [JSONRenderer]
    permission_classes: Any = [SignedIn]
    content_negotiation_class: Any = JsonOnly
    metadata_class: Any = None  # the OpenAPI document tells what OPTIONS would
    query_parameters: ClassVar[tuple[str, ...]] = ()
    request: Any
    post: Any

    @property
    def actor(self) -> Actor:
        """Who asks."""
        actor: Actor = self.request.actor
        return actor

    def get_exception_handler(self) -> Any:
        return problems.handle

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        if request.method in _WRITES:
            request._request.body  # noqa: B018 - read whole, so that it can be both parsed and fingerprinted
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        key = request.headers.get(idempotency.HEADER)
        method = request.method.lower()
        handler = getattr(self, method, None)
        if request.method in _WRITES and key is not None and handler is not None:
            # The framework looks the handler up after this: it finds the one that answers a key once.
            setattr(self, method, partial(self._once, handler, key))

    def _once(self, handler: Any, key: str, request: Any, *args: Any, **kwargs: Any) -> Response:
        def act() -> idempotency.Answer:
            response = handler(request, *args, **kwargs)
            body = json.loads(JSONRenderer().render(response.data) or b"null")
            return idempotency.Answer(response.status_code, body, dict(response.headers))

        answer, is_repeated = idempotency.once(
            actor=self.actor,
            key=key,
            method=request.method,
            path=request.get_full_path(),
            body=request._request.body,
            act=act,
        )
        headers = {**answer.headers, **({"Idempotent-Replayed": "true"} if is_repeated else {})}
        return Response(answer.body, status=answer.status, headers=headers)


class ApiView(ApiMixin, APIView):
    """Base of API views that are no list of resources."""


class NoSuchRoute(ApiView):
    """Answers what no route matches."""

    authentication_classes: Any = []
    permission_classes: Any = [AllowAny]
    schema = None

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        if not request.path.endswith("/"):
            advice = _("API addresses end with a slash.")
        else:
            advice = _("See /api/v1/docs/ for what there is.")
        raise Missing(_("There is nothing at %(path)s.") % {"path": request.path}, code="unknown_route", advice=advice)
