"""Metrics: PromQL answered by the store, in Prometheus' own JSON, and the catalogue of what is measured."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from cloud.common.api.filters import refuse_unknown
from cloud.common.api.views import ApiView
from cloud.common.errors import Invalid
from monitoring.api.parameters import duration, moment
from monitoring.api.serializers import CatalogueSerializer, PrometheusAnswerSerializer, metric_rows
from monitoring.services import queries

_TIME = "Unix seconds, or RFC 3339 with its zone."


def _parameter(name: str, description: str, *, required: bool = False, **schema: Any) -> OpenApiParameter:
    return OpenApiParameter(name, {"type": "string", **schema}, OpenApiParameter.QUERY, required, description)


_QUERY = _parameter("query", "PromQL.", required=True, minLength=1, maxLength=queries.LONGEST_QUERY)


def _required(request: Any, name: str) -> str:
    text = request.query_params.get(name)
    if text is None:
        reason = _("This parameter is required.")
        raise Invalid(_("Not valid: %(names)s.") % {"names": name}, errors={name: [reason]})
    return str(text)


class MetricsQueryView(ApiView):
    @extend_schema(
        operation_id="metrics_query",
        summary="Answer PromQL at one time",
        parameters=[_QUERY, _parameter("time", f"{_TIME} Now by default.")],
        responses=PrometheusAnswerSerializer,
    )
    def get(self, request: Any) -> Response:
        refuse_unknown(request, {"query", "time"})
        query = _required(request, "query")
        time = request.query_params.get("time")
        return Response(queries.instant(query, time=moment("time", time) if time else None, actor=self.actor))


class MetricsQueryRangeView(ApiView):
    @extend_schema(
        operation_id="metrics_query_range",
        summary="Answer PromQL over a range of time",
        parameters=[
            _QUERY,
            _parameter("start", _TIME, required=True),
            _parameter("end", _TIME, required=True),
            _parameter("step", "Seconds, or a duration as 30s, 5m; some 300 points by default, 11,000 at most."),
        ],
        responses=PrometheusAnswerSerializer,
    )
    def get(self, request: Any) -> Response:
        refuse_unknown(request, {"query", "start", "end", "step"})
        query = _required(request, "query")
        start, end = (moment(name, _required(request, name)) for name in ("start", "end"))
        step = request.query_params.get("step")
        step_s = duration("step", step) if step else None
        return Response(queries.over_range(query, start=start, end=end, step_s=step_s, actor=self.actor))


class MetricsCatalogueView(ApiView):
    @extend_schema(
        operation_id="metrics_catalogue",
        summary="List what is measured",
        parameters=[_parameter("resource", "Only metrics of this kind of resource, as `instance`.")],
        responses=CatalogueSerializer,
    )
    def get(self, request: Any) -> Response:
        refuse_unknown(request, {"resource"})
        self.actor.require("metric.view")
        rows = metric_rows(request.query_params.get("resource"))
        return Response({"results": rows, "next": None, "count": len(rows), "count_is_estimate": False})
