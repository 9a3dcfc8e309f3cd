"""The doctor: what differs between records and reality, and its mends."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from cloud.common.api.filters import refuse_unknown
from cloud.common.api.links import url_of
from cloud.common.api.serializers import InputSerializer, UrlField
from cloud.common.api.views import ApiMixin
from cloud.common.doctor import CHECKS, Finding
from cloud.infra.models import QuarantinedThing
from cloud.infra.services import doctor, quarantine

AT_ONCE = 1000
_RESULTS = ("mended", "accepted", "gone", "manual", "refused")


class FindingSerializer(serializers.Serializer[Any]):
    """A difference between records and reality."""

    id = serializers.CharField(help_text="The same each time the same thing is found.")
    kind = serializers.CharField()
    nature = serializers.ChoiceField(["leak", "drift", "missing"])
    label = serializers.CharField(help_text="What this kind is.")  # type: ignore[assignment]
    resource_type = serializers.CharField()
    resource_uuid = serializers.CharField(help_text="The uuid of what it is about; a file's name where it has none.")
    name = serializers.CharField()
    host = serializers.CharField(allow_blank=True, help_text="The machine; empty where only rows differ.")
    detail = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    mend = serializers.CharField(allow_blank=True, help_text="What `fix` does; empty where only a person can.")


class UnseenSerializer(serializers.Serializer[Any]):
    """What was not looked at."""

    agent = serializers.UUIDField()
    name = serializers.CharField()
    part = serializers.CharField(allow_blank=True, help_text="Empty: the whole machine.")
    reason = serializers.CharField()


class QuarantinedSerializer(serializers.ModelSerializer[Any]):
    """Something that was taken out of the way."""

    host = serializers.CharField(source="agent.name", default="")

    class Meta:
        model = QuarantinedThing
        fields = ["uuid", "kind", "resource_type", "resource_uuid", "name", "host", "created_at"]


@extend_schema_serializer(many=False)
class DiagnosisSerializer(serializers.Serializer[Any]):
    """The outcome of an examination."""

    results = FindingSerializer(many=True)
    notes = FindingSerializer(many=True, help_text="Worth knowing, and not out of order: unknown domains.")
    not_looked_at = UnseenSerializer(many=True)
    quarantine = QuarantinedSerializer(many=True)
    next = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    count_is_estimate = serializers.BooleanField()
    machines = serializers.IntegerField(help_text="How many machines answered.")
    checks = serializers.IntegerField(help_text="How many kinds of differences were looked for.")
    took_s = serializers.FloatField()
    at = serializers.DateTimeField()


class FixInput(InputSerializer):
    ids = serializers.ListField(
        child=serializers.CharField(max_length=128), min_length=1, max_length=AT_ONCE, help_text="Ids of findings."
    )


class ThingsInput(InputSerializer):
    ids = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=AT_ONCE, help_text="Uuids of things in quarantine."
    )


class DeedSerializer(serializers.Serializer[Any]):
    """What became of a finding."""

    id = serializers.CharField()
    result = serializers.ChoiceField(_RESULTS)
    detail = serializers.CharField(allow_blank=True)
    job = UrlField(allow_null=True)


class DeedsSerializer(serializers.Serializer[Any]):
    results = DeedSerializer(many=True)


class JobsSerializer(serializers.Serializer[Any]):
    """The jobs that are at it; none where it was done at once."""

    jobs = serializers.ListField(child=serializers.CharField())


def shown(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as the API and the command line show them."""
    return [
        {
            "id": finding.id,
            "kind": finding.kind,
            "nature": CHECKS[finding.kind].nature,
            "label": str(CHECKS[finding.kind].label),
            "resource_type": finding.resource_type,
            "resource_uuid": finding.resource_uuid,
            "name": finding.name,
            "host": finding.host,
            "detail": str(finding.detail),
            "since": finding.since.isoformat() if finding.since else None,
            "mend": str(CHECKS[finding.kind].mend) if finding.is_mendable else "",
        }
        for finding in findings
    ]


def diagnosis(found: doctor.Diagnosis) -> dict[str, Any]:
    """An examination's outcome as the API and the command line show it."""
    kept = QuarantinedThing.objects.select_related("agent")
    return {
        "results": shown(found.findings),
        "notes": shown(found.notes),
        "not_looked_at": [{**vars(each), "reason": str(each.reason)} for each in found.unseen],
        "quarantine": QuarantinedSerializer(kept, many=True).data,
        "next": None,
        "count": len(found.findings),
        "count_is_estimate": False,
        "machines": found.machines,
        "checks": found.checks,
        "took_s": found.took_s,
        "at": found.at.isoformat(),
    }


class DoctorViewSet(ApiMixin, ViewSet):
    """Compares records and reality, and mends what differs. Administrators only."""

    @extend_schema(
        summary="What the doctor finds now",
        description="Asks every machine at once; takes seconds. A machine that is silent is told in `not_looked_at`.",
        parameters=[OpenApiParameter("kind", str, description="Look for this kind of difference only.")],
        responses=DiagnosisSerializer,
    )
    def list(self, request: Any) -> Response:
        self.actor.require("doctor.view")
        refuse_unknown(request, {"kind"})
        kind = request.query_params.get("kind")
        return Response(diagnosis(doctor.examine([kind] if kind is not None else None)))

    @extend_schema(summary="Mend findings", request=FixInput, responses={202: DeedsSerializer})
    @action(detail=False, methods=["post"])
    def fix(self, request: Any) -> Response:
        self.actor.require("doctor.fix")
        deeds = doctor.fix(_ids(FixInput, request), actor=self.actor)
        body = [
            {"id": deed.id, "result": deed.result, "detail": str(deed.detail), "job": _url(deed.job)} for deed in deeds
        ]
        return Response({"results": body}, status=202)

    @extend_schema(summary="Put things back from quarantine", request=ThingsInput, responses={202: JobsSerializer})
    @action(detail=False, methods=["post"])
    def restore(self, request: Any) -> Response:
        self.actor.require("doctor.restore")
        return _jobs(quarantine.restore(_ids(ThingsInput, request), actor=self.actor))

    @extend_schema(summary="Remove things from quarantine", request=ThingsInput, responses={202: JobsSerializer})
    @action(detail=False, methods=["post"])
    def purge(self, request: Any) -> Response:
        self.actor.require("doctor.purge")
        return _jobs(quarantine.purge(_ids(ThingsInput, request), actor=self.actor))


def _ids(takes: type[InputSerializer], request: Any) -> Any:
    serializer = takes(data=request.data)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data["ids"]


def _jobs(opened: Iterable[Any]) -> Response:
    return Response({"jobs": [url_of(job) for job in opened]}, status=202)


def _url(job: Any) -> str | None:
    return url_of(job) if job is not None else None
