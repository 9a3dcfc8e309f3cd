from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from cloud.common.api.links import url_of
from cloud.common.api.serializers import UrlField
from cloud.jobs import words
from cloud.jobs.models import Job, JobStep

ERROR = {
    "type": ["object", "null"],
    "description": "Why it failed: code, title, detail, advice.",
    "properties": {name: {"type": "string"} for name in ("code", "title", "detail", "advice")},
    "additionalProperties": True,
}
PROGRESS = {
    "type": ["object", "null"],
    "description": "What the machine says of the step at work: percent, text, bytes_done, bytes_total.",
    "additionalProperties": True,
}


class JobStepSerializer(serializers.ModelSerializer[JobStep]):
    label = serializers.SerializerMethodField()  # type: ignore[assignment]
    error = serializers.SerializerMethodField()

    class Meta:
        model = JobStep
        fields = ["position", "name", "label", "state", "started_at", "finished_at", "error"]
        read_only_fields = fields

    def get_label(self, step: JobStep) -> str:
        return str(words.label_of(step, step.job))

    @extend_schema_field(ERROR)
    def get_error(self, step: JobStep) -> Any:
        return words.error(step.error)


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job in a list."""

    url = UrlField()
    verb = serializers.SerializerMethodField()
    step = serializers.SerializerMethodField(help_text="The step at work, in words.")
    parent = serializers.SerializerMethodField()  # type: ignore[assignment]
    error = serializers.SerializerMethodField()
    is_cancellable = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = [
            "uuid",
            "workflow",
            "verb",
            "state",
            "percent",
            "step",
            "resource_type",
            "resource_uuid",
            "resource_name",
            "parent",
            "actor_uuid",
            "actor_name",
            "is_cancellable",
            "error",
            "created_at",
            "started_at",
            "finished_at",
            "url",
        ]
        read_only_fields = fields

    def get_verb(self, job: Job) -> str:
        return str(words.verb(job))

    def get_step(self, job: Job) -> str:
        return str(words.step_label(job))

    @extend_schema_field({"type": ["string", "null"], "format": "uri-reference"})
    def get_parent(self, job: Job) -> str | None:
        return url_of(Job(pk=job.parent_id)) if job.parent_id else None

    @extend_schema_field(ERROR)
    def get_error(self, job: Job) -> Any:
        return words.error(job.error)

    def get_is_cancellable(self, job: Job) -> bool:
        return words.is_cancellable(job)


class JobDetailSerializer(JobSerializer):
    """A job with its steps; the children of a batch are listed at `?parent=`."""

    steps = JobStepSerializer(many=True, read_only=True)
    progress = serializers.SerializerMethodField()

    class Meta(JobSerializer.Meta):
        fields = [*JobSerializer.Meta.fields, "progress", "steps"]
        read_only_fields = fields

    @extend_schema_field(PROGRESS)
    def get_progress(self, job: Job) -> Any:
        return words.progress([job]).get(job.pk)
