from types import SimpleNamespace
from typing import Any

from django.db import transaction
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common import deletion
from cloud.common.api import previews
from cloud.common.api.acts import LOCATION, act
from cloud.common.api.filters import refuse_unknown
from cloud.common.api.links import url_of
from cloud.common.api.paging import KeySetPaging
from cloud.common.api.serializers import (
    BatchAcceptedSerializer,
    ItemListSerializer,
    NoInput,
)
from cloud.common.api.views import ApiView
from cloud.common.api.viewsets import ResourceViewSet
from cloud.common.errors import Invalid
from cloud.jobs import batches, retries, services, settling
from cloud.jobs.api.serializers import (
    JobDetailSerializer,
    JobSerializer,
    RetryInput,
    StuckListSerializer,
)
from cloud.jobs.models import Job, JobItem, JobState

ITEM_STATES = sorted({*JobState.values, "waiting", "refused"})


class _AsNamed:
    """Items come in the order in which they were named."""

    ordering_fields = {"position": "position"}
    default_ordering = "position"


def results_page(job: Job, request: Any) -> dict[str, Any]:
    """A page of what became of a batch's items, narrowed by `?state=`."""
    refuse_unknown(request, {"state", "limit", "cursor"})
    items = JobItem.objects.filter(parent=job).select_related("job")
    state = request.query_params.get("state")
    if state is not None:
        if state not in ITEM_STATES:
            raise Invalid(_("There is no such state."), errors={"state": [_("One of: %s.") % ", ".join(ITEM_STATES)]})
        items = items.annotate(at_end=Coalesce("job__state", "state")).filter(at_end=state)
    paging = KeySetPaging()
    page = paging.paginate_queryset(items, request, _AsNamed)
    body: dict[str, Any] = paging.get_paginated_response(batches.shown(page)).data
    return body


class JobViewSet(ResourceViewSet):
    """Everything that takes longer than a click."""

    queryset = Job.objects.all()
    serializer_class = JobDetailSerializer
    list_serializer_class = JobSerializer
    search_fields = ("resource_name", "workflow")
    default_ordering = "-created_at"
    more_filters = ("parent",)
    other_acts = {"retry": retries.retry, "settle": settling.settle}
    batch_actions = frozenset({"batch", "retry"})
    cancel = act(services.cancel)

    @extend_schema(
        summary="Try what failed, was refused or cancelled of many again",
        request=RetryInput,
        responses={202: BatchAcceptedSerializer},
        parameters=[LOCATION],
    )
    @action(detail=True, methods=["post"])
    def retry(self, request: Any, uuid: str) -> Response:
        job = self.get_object()
        self.admit("retry")
        taken = RetryInput(data=request.data, context=self.get_serializer_context())
        taken.is_valid(raise_exception=True)
        place = url_of(retries.retry(job, actor=self.actor, params=taken.validated_data.get("params")))
        return Response({"job": place, "results": []}, status.HTTP_202_ACCEPTED, headers={"Location": place})

    @extend_schema(
        summary="Say of a stuck job that a person has looked at it; gives back what it kept and nobody uses",
        request=NoInput,
        responses={200: JobDetailSerializer},
        parameters=previews.PARAMETERS,
    )
    @action(detail=True, methods=["post"])
    def settle(self, request: Any, uuid: str) -> Response:
        is_dry = previews.is_dry(request)
        job = self.get_object()
        self.admit("settle")
        NoInput(data=request.data).is_valid(raise_exception=True)
        settling.settle.act.expect(job, self.actor)  # type: ignore[attr-defined]
        if is_dry:
            settles = SimpleNamespace(name="settle", act=settling.settle.act)  # type: ignore[attr-defined]
            return Response(previews.document(settles, [job], settling.effects(job), self.actor))
        with transaction.atomic():
            word = request.headers.get(deletion.HEADER)
            deletion.expect_seen(word, [job], "settle", self.actor, effects=lambda: settling.effects(job))
            settling.settle(job, actor=self.actor)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        summary="What became of each of many",
        responses=ItemListSerializer,
        parameters=[
            OpenApiParameter("state", {"type": "string", "enum": ITEM_STATES}),
            OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
            OpenApiParameter("cursor", {"type": "string"}),
        ],
    )
    @action(detail=True, methods=["get"], filter_backends=[], pagination_class=None)
    def results(self, request: Any, uuid: str) -> Response:
        self.admit_look()
        job = self.get_object()
        return Response(results_page(job, request))


class StuckView(ApiView):
    """What does not go on by itself: resources whose activity no job carries on, jobs that a person must look at."""

    query_parameters = ("kind",)

    @extend_schema(
        operation_id="stuck_list",
        summary="What is stuck, the longest first",
        parameters=[OpenApiParameter("kind", {"type": "string"}, description="Of one kind only, as instance or job.")],
        responses=StuckListSerializer,
    )
    def get(self, request: Any) -> Response:
        self.actor.require("state.view")
        refuse_unknown(request, {"kind"})
        found = settling.stuck(request.query_params.get("kind", ""))
        body = {"results": found, "next": None, "count": len(found), "count_is_estimate": False}
        return Response(StuckListSerializer(body).data)
