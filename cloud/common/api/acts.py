"""Acts of a view set, each made of the service that does it: input → service → answer.

class InstanceViewSet(ResourceViewSet):
    create = creates(instances.create, InstanceInput, is_job=True)  # POST /instances/: 202 with the job
    partial_update = updates(instances.update)                      # PATCH /instances/<uuid>/: 200 with the instance
    destroy = deletes(instances.destroy, is_job=True)               # DELETE /instances/<uuid>/: 202 with the job
    start = job_action(instances.start)                             # POST /instances/<uuid>/start/: 202 with the job
    expunge = job_action(instances.expunge, effect=LOST)            # the same, and can be looked at before (?dry_run=1)
    rename = act(instances.rename, RenameInput)                     # POST /instances/<uuid>/rename/: 200, the instance

Without `is_job` a create answers 201 with the resource, and a delete 204.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common import acts, batches
from cloud.common.api import previews
from cloud.common.api.links import url_of
from cloud.common.api.serializers import (
    AcceptedSerializer,
    InputSerializer,
    NoInput,
    PreviewSerializer,
    RenameInput,
)
from cloud.common.relations import LOST

Input = type[InputSerializer] | None
Handler = Callable[..., Response]

LOCATION = OpenApiParameter(
    "Location",
    {"type": "string", "format": "uri-reference"},
    OpenApiParameter.HEADER,
    description="Where to follow the job, or the new resource.",
    response=[201, 202],
)


@dataclass(frozen=True)
class Performed:
    """What a handler of a row does: the act's name in the API, its service, and what it takes.

    `effect` is what a deletion does to the row itself (`relations.LOST`, …), empty for other acts; where
    `needs_preview`, it is carried out only for who has seen the effects.
    """

    name: str
    service: Callable[..., Any]
    takes: Input
    effect: str = ""
    needs_preview: bool = False

    @property
    def act(self) -> acts.Act | None:
        return acts.act_of(self.service)


class Act:
    """A class attribute that becomes the framework's handler, once it knows the name it was given."""

    def __init__(self, build: Callable[[str], Handler]) -> None:
        self.build = build

    def __set_name__(self, owner: type, name: str) -> None:
        setattr(owner, name, self.build(name))


def creates(service: Callable[..., Any], takes: type[InputSerializer], *, is_job: bool = False) -> Any:
    """`service(*, actor, **validated)` makes one resource, or `(resources, job)` when `is_job`."""

    def handler(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        self.admit("create")
        validated = _validated(self, takes, request)
        if is_job:
            with transaction.atomic():
                resources, job = service(actor=request.actor, **validated)
                batches.keep_wish(job, batches.Wish(self.prefix, request.data))
            return accepted(resources, job)
        made = service(actor=request.actor, **validated)
        resource = made[0] if isinstance(made, tuple) else made
        return Response(_shown(self, resource), status.HTTP_201_CREATED, headers={"Location": url_of(resource)})

    handler.performed = Performed("create", service, takes)  # type: ignore[attr-defined]
    return Act(lambda name: _named(handler, name, _documented(service, takes, 202 if is_job else 201)))


def updates(service: Callable[..., Any], takes: type[InputSerializer] = RenameInput, *, is_job: bool = False) -> Any:
    """`service(resource, *, actor, **validated)` changes what was sent and nothing else; only those fields are given.

    It may return the changed resource or nothing; with `is_job` it returns the job.
    """

    def handler(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        resource = self.get_object()
        self.admit("update")
        answer = service(resource, actor=request.actor, **_validated(self, takes, request, partial=True))
        return accepted([resource], answer) if is_job else Response(_shown(self, resource))

    handler.performed = Performed("update", service, takes)  # type: ignore[attr-defined]
    return Act(lambda name: _named(handler, name, _documented(service, takes, 202 if is_job else 200)))


def deletes(
    service: Callable[..., Any], *, is_job: bool = False, effect: str = LOST, needs_preview: bool = False
) -> Any:
    """`service(resource, *, actor)` deletes the resource; with `is_job` it returns the job that does.

    `?dry_run=1` shows what it would do, `effect` being what it does to the resource itself; with `needs_preview` the
    token of that is needed for the deed.
    """
    performed = Performed("delete", service, None, effect, needs_preview)

    def handler(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        is_dry = previews.is_dry(request)
        resource = self.get_object()
        self.admit("delete")
        if is_dry:
            return Response(previews.show(performed, [resource], request.actor))
        # A model forgets its key when it is deleted, and the answer names what was acted on.
        named = {"uuid": resource.pk, "name": str(resource), "url": url_of(resource)}
        with transaction.atomic():
            previews.expect_seen(performed, [resource], request)
            job = service(resource, actor=request.actor)
        if is_job:
            return _accepted([named], job)
        return Response(status=status.HTTP_204_NO_CONTENT)

    handler.performed = performed  # type: ignore[attr-defined]
    return Act(
        lambda name: _named(handler, name, _documented(service, None, 202 if is_job else 204, is_previewed=True))
    )


def job_action(
    service: Callable[..., Any], takes: Input = None, *, url_path: str | None = None, effect: str = ""
) -> Any:
    """A verb on one resource that a job carries out: `service(resource, *, actor, **validated) -> Job | None`.

    With `effect` it is a deletion, which `?dry_run=1` shows; a preview's token is heeded where it is sent.
    """

    def handler(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        is_dry = bool(effect) and previews.is_dry(request)
        resource = self.get_object()
        self.admit(handler.__name__)
        if is_dry:
            return Response(previews.show(handler.performed, [resource], request.actor))  # type: ignore[attr-defined]
        validated = _validated(self, takes or NoInput, request)
        with transaction.atomic():
            if effect:
                previews.expect_seen(handler.performed, [resource], request)  # type: ignore[attr-defined]
            job = service(resource, actor=request.actor, **validated)
        return accepted([resource], job)

    return Act(
        lambda name: _verb(
            handler,
            Performed(name, service, takes, effect),
            url_path,
            _documented(service, takes, 202, is_previewed=bool(effect)),
        )
    )


def act(service: Callable[..., Any], takes: Input = None, *, url_path: str | None = None) -> Any:
    """A verb on one resource that is done at once: `service(resource, *, actor, **validated)`; answers the resource."""

    def handler(self: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
        resource = self.get_object()
        self.admit(handler.__name__)
        validated = _validated(self, takes or NoInput, request)
        service(resource, actor=request.actor, **validated)
        return Response(_shown(self, resource))

    return Act(lambda name: _verb(handler, Performed(name, service, takes), url_path, _documented(service, takes, 200)))


def accepted(resources: Iterable[Any], job: Any) -> Response:
    """202 with the job and the resources it is about; `Location` leads to the job."""
    named = [{"uuid": row.pk, "name": str(row), "url": url_of(row)} for row in resources]
    return _accepted(named, job)


def _accepted(named: list[dict[str, Any]], job: Any) -> Response:
    place = url_of(job) if job is not None else None
    body = {"job": place, "results": [{**row, "uuid": str(row["uuid"])} for row in named]}
    return Response(body, status.HTTP_202_ACCEPTED, headers={"Location": place} if place else None)


def _validated(view: Any, takes: type[InputSerializer], request: Any, *, partial: bool = False) -> dict[str, Any]:
    serializer = takes(data=request.data, partial=partial, context=view.get_serializer_context())
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _shown(view: Any, resource: Any) -> Any:
    # Read again through the view's queryset, which joins and annotates what the serializer shows.
    return view.get_serializer(view.get_queryset().filter(pk=resource.pk).first() or resource).data


def _named(handler: Handler, name: str, document: Callable[[Handler], Handler]) -> Handler:
    handler.__name__ = handler.__qualname__ = name
    return document(handler)


def _verb(
    handler: Handler, performed: Performed, url_path: str | None, document: Callable[[Handler], Handler]
) -> Handler:
    handler.performed = performed  # type: ignore[attr-defined]
    handler.__name__ = handler.__qualname__ = performed.name
    path = url_path or performed.name.replace("_", "-")
    return document(action(detail=True, methods=["post"], url_path=path, url_name=path)(handler))


def _documented(
    service: Callable[..., Any], takes: Input, code: int, *, is_previewed: bool = False
) -> Callable[[Handler], Handler]:
    summary = (service.__doc__ or service.__name__).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    options: dict[str, Any] = {"request": takes, "summary": summary, "parameters": []}
    if code in (201, 202):
        options["parameters"] += [LOCATION]
    if code in (202, 204):
        options["responses"] = {code: AcceptedSerializer if code == 202 else None}
    if is_previewed:
        options["parameters"] += previews.PARAMETERS
        options["responses"] |= {200: PreviewSerializer}
    return lambda handler: extend_schema(**options)(handler)
