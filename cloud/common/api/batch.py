"""The door for many at once: `POST /<list>/batch/`, with a result for each row."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common import batches
from cloud.common.actor import Actor
from cloud.common.api import previews
from cloud.common.api.acts import LOCATION, Performed
from cloud.common.api.links import url_of
from cloud.common.api.serializers import (
    BatchAcceptedSerializer,
    BatchInputSerializer,
    NoInput,
    PreviewSerializer,
)
from cloud.common.errors import Invalid, Missing
from cloud.common.text import filled

_views: dict[str, Any] = {}


def serve(prefix: str, view: Any) -> None:
    """Make the verbs of a list known to `perform`; called by the router."""
    _views[prefix] = view
    batches.fill_performer(perform)


def door(name: str, verbs: dict[str, Performed]) -> Any:
    """The handler of a list's `batch/`, by the name of its rows; one verb may have several names."""
    members = {"verb": serializers.ChoiceField(sorted(verbs)), "__doc__": BatchInputSerializer.__doc__}
    input_class = type(f"{name}BatchInput", (BatchInputSerializer,), members)

    def batch(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        is_dry = previews.is_dry(request)
        asked = input_class(data=request.data, context=self.get_serializer_context())
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        performed = verbs[wanted["verb"]]
        self.admit(performed.name)
        keys = _without_twins(wanted["uuids"])
        params = dict(wanted.get("params", {}))
        takes = performed.takes or NoInput
        _expect_valid(takes, params, request.actor)
        rows = _found(self, keys, request.actor) if performed.effect else []
        if is_dry:
            return Response(_previewed(performed, rows, keys, request))
        if rows:
            previews.expect_seen(performed, rows, request)
        secrets = {name for name, field in takes().fields.items() if field.write_only}
        parent = batches.keeper().begin(
            batches.Batch(
                prefix=self.prefix,
                verb=wanted["verb"],
                permission=self.permission_of(performed.name),
                model=self.queryset.model._meta.label,
                keys=keys,
                params={name: value for name, value in params.items() if name not in secrets},
                secrets={name: value for name, value in params.items() if name in secrets},
            ),
            actor=request.actor,
        )
        place = url_of(parent)
        return Response({"job": place, "results": []}, status.HTTP_202_ACCEPTED, headers={"Location": place})

    documented = extend_schema(
        summary="One verb for many",
        request=input_class,
        responses={200: PreviewSerializer, 202: BatchAcceptedSerializer},
        parameters=[LOCATION, *previews.PARAMETERS],
    )
    return documented(action(detail=False, methods=["post"], url_path="batch", filter_backends=[])(batch))


def finish(response: Response) -> Response:
    """Carry a batch that was accepted out, and put the results into its answer.

    Apart from what accepts it, so that each item is a transaction of its own also under an `Idempotency-Key`.
    """
    if response.status_code == status.HTTP_202_ACCEPTED:
        parent = UUID(response.data["job"].rstrip("/").rpartition("/")[2])
        batches.keeper().go_on(parent)
        response.data = {"job": response.data["job"], "results": batches.keeper().results(parent)}
    return response


def perform(prefix: str, verb: str, key: Any, params: dict[str, Any], actor: Actor) -> batches.Done:
    """A verb of a list for one row, or `create` with a body; raises what a request would be refused with."""
    view = _views[prefix]
    if verb == "create":
        made = view.create.performed
        resources, job = made.service(actor=actor, **_validated(made.takes, params, actor))
        return batches.Done(resources[0].pk, str(resources[0]), job)
    performed = view.verbs[verb]
    row = view.queryset.visible_to(actor).filter(pk=key).first()
    if row is None:
        raise Missing(_("There is no such resource."), resource=str(key))
    name = str(row)
    answer = performed.service(row, actor=actor, **_validated(performed.takes or NoInput, params, actor))
    job = answer if isinstance(answer, Model) and answer._meta.label == "jobs.Job" and prefix != "jobs" else None
    return batches.Done(key, name, job)


def _found(view: Any, keys: list[UUID], actor: Actor) -> list[Any]:
    return list(view.queryset.visible_to(actor).filter(pk__in=keys).order_by("pk"))


def _previewed(performed: Performed, rows: list[Any], keys: list[UUID], request: Any) -> dict[str, Any]:
    if not performed.effect:
        raise Invalid(
            _("This verb deletes nothing: there is nothing to look at before."),
            code="no_preview",
            errors={"dry_run": [_("Leave it out.")]},
        )
    if not rows:
        raise Missing(_("There is no such resource."))
    shown = previews.show(performed, rows, request.actor)
    found = {row.pk for row in rows}
    shown["results"] += [
        {
            "uuid": str(key),
            "name": "",
            "url": "",
            "allowed": False,
            "code": "not_found",
            "reason": str(_("There is no such resource.")),
            "advice": "",
            "job": None,
        }
        for key in keys
        if key not in found
    ]
    return shown


def _without_twins(keys: list[UUID]) -> list[UUID]:
    twins = sorted({str(key) for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twins:
        raise Invalid(
            filled(_("Named more than once: %(uuids)s."), uuids=", ".join(twins[:5])),
            code="duplicate",
            errors={"uuids": [_("Name each resource once.")]},
        )
    return keys


def _validated(takes: Any, params: Any, actor: Actor) -> dict[str, Any]:
    serializer = takes(data=params, context={"request": SimpleNamespace(actor=actor)})
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _expect_valid(takes: Any, params: Any, actor: Actor) -> None:
    try:
        _validated(takes, params, actor)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"params": error.detail}) from None
