"""Shapes of the metrics API."""

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers

from monitoring.catalogue import METRICS, Kind, Unit


class PrometheusDataSerializer(serializers.Serializer[Any]):
    resultType = serializers.ChoiceField(choices=["vector", "matrix", "scalar", "string"])  # noqa: N815 - Prometheus' name
    result = serializers.ListField(child=serializers.JSONField())


class PrometheusAnswerSerializer(serializers.Serializer[Any]):
    """Prometheus' answer, as https://prometheus.io/docs/prometheus/latest/querying/api/ describes it."""

    status = serializers.CharField()
    data = PrometheusDataSerializer()  # type: ignore[assignment]


class MetricSerializer(serializers.Serializer[Any]):
    """One series family. `expression` is the PromQL to show: the series, or its rate for a counter."""

    name = serializers.CharField()
    resource = serializers.CharField()
    title = serializers.CharField()
    unit = serializers.ChoiceField(choices=[unit.value for unit in Unit])
    kind = serializers.ChoiceField(choices=[kind.value for kind in Kind])
    labels = serializers.ListField(child=serializers.CharField())
    aliases = serializers.ListField(child=serializers.CharField())
    expression = serializers.CharField()


class CatalogueSerializer(serializers.Serializer[Any]):
    results = MetricSerializer(many=True)
    next = serializers.URLField(allow_null=True)
    count = serializers.IntegerField(min_value=0)
    count_is_estimate = serializers.BooleanField()


def metric_rows(resource: str | None = None) -> list[dict[str, Any]]:
    """The catalogue as plain rows, titles in the reader's language; of one kind of resource when named."""
    return [
        {
            "name": metric.name,
            "resource": metric.resource,
            "title": _(metric.title),
            "unit": metric.unit.value,
            "kind": metric.kind.value,
            "labels": list(metric.labels),
            "aliases": list(metric.aliases),
            "expression": metric.expression,
        }
        for metric in METRICS
        if resource is None or metric.resource == resource
    ]
