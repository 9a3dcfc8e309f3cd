import time
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from cloud.common.api.links import url_of
from cloud.common.api.serializers import ERROR, InputSerializer, ItemSerializer, UrlField
from cloud.jobs import batches, estimates, words
from cloud.jobs.models import CleanUp, Job, JobStep

PROGRESS = {
    "type": ["object", "null"],
    "description": "What the machine says of the step at work: percent, text, bytes_done, bytes_total.",
    "additionalProperties": True,
}
COUNTS = {
    "type": ["object", "null"],
    "description": "How many of a batch's items are waiting, running, succeeded, failed, refused, cancelled, stuck.",
    "additionalProperties": {"type": "integer"},
}
FIRST_RESULTS = 100


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


class CleanUpSerializer(serializers.ModelSerializer[CleanUp]):
    """What an ended job still owes on a machine that was away; `machine` is empty for what control gives back last."""

    step = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()

    class Meta:
        model = CleanUp
        fields = ["step", "machine", "state", "error"]
        read_only_fields = fields

    def get_step(self, row: CleanUp) -> str:
        return str(words.label_at(row.job, row.position))

    @extend_schema_field(ERROR)
    def get_error(self, row: CleanUp) -> Any:
        return words.error(row.error)


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job in a list."""

    url = UrlField()
    verb = serializers.SerializerMethodField()
    step = serializers.SerializerMethodField(help_text="The step at work, in words.")
    parent = serializers.SerializerMethodField()  # type: ignore[assignment]
    error = serializers.SerializerMethodField()
    is_cancellable = serializers.SerializerMethodField()
    eta_s = serializers.SerializerMethodField(help_text="Seconds until its end, as far as known.")

    class Meta:
        model = Job
        fields = [
            "uuid",
            "workflow",
            "verb",
            "state",
            "percent",
            "eta_s",
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

    def _once(self, name: str) -> dict[Any, Any]:
        """What is looked up once for an answer, whatever asks for it."""
        kept: dict[str, dict[Any, Any]] = self.root.__dict__.setdefault("looked_up", {})
        return kept.setdefault(name, {})

    @extend_schema_field({"type": ["integer", "null"], "minimum": 0})
    def get_eta_s(self, job: Job) -> int | None:
        # Of all jobs of the page at once, the first time that one is asked for.
        known = self._once("estimates")
        if job.pk not in known:
            page = getattr(self.parent, "instance", None)
            jobs = list(page) if isinstance(page, list) else [job]
            known |= estimates.remaining_s(jobs, words.progress(jobs), time.time())
        eta_s: int | None = known[job.pk]
        return eta_s


class JobDetailSerializer(JobSerializer):
    """A job with its steps. That of many has `results`: the first 100, the others at `results_url`, and `counts`."""

    steps = JobStepSerializer(many=True, read_only=True)
    progress = serializers.SerializerMethodField()
    clean_ups = CleanUpSerializer(many=True, read_only=True)
    bytes_per_s = serializers.SerializerMethodField(help_text="How fast the step at work moves its bytes.")
    counts = serializers.SerializerMethodField()
    results = serializers.SerializerMethodField()
    results_url = serializers.SerializerMethodField()

    class Meta(JobSerializer.Meta):
        fields = [
            *JobSerializer.Meta.fields,
            *("progress", "bytes_per_s", "steps", "clean_ups"),
            *("counts", "results", "results_url", "settled_at", "settled_by"),
        ]
        read_only_fields = fields

    @extend_schema_field(PROGRESS)
    def get_progress(self, job: Job) -> Any:
        return self._said(job)

    def get_bytes_per_s(self, job: Job) -> float | None:
        step = next((step for step in job.steps.all() if step.position == job.cursor and step.started_at), None)
        elapsed = time.time() - step.started_at.timestamp() if step and step.started_at else 0.0
        return estimates.bytes_per_s(self._said(job), elapsed)

    def _said(self, job: Job) -> Any:
        said = self._once("said")
        if job.pk not in said:
            said[job.pk] = words.progress([job]).get(job.pk)
        return said[job.pk]

    @extend_schema_field(COUNTS)
    def get_counts(self, job: Job) -> Any:
        return batches.counts(job) if job.workflow == batches.BATCH else None

    @extend_schema_field(ItemSerializer(many=True))
    def get_results(self, job: Job) -> Any:
        if job.workflow != batches.BATCH:
            return []
        return batches.shown(job.items.select_related("job").order_by("position")[:FIRST_RESULTS])

    @extend_schema_field({"type": ["string", "null"], "format": "uri-reference"})
    def get_results_url(self, job: Job) -> str | None:
        return f"{url_of(job)}results/" if job.workflow == batches.BATCH else None


class RetryInput(InputSerializer):
    """What is not kept with a job: secrets."""

    params = serializers.DictField(required=False)


class StuckSerializer(serializers.Serializer[Any]):
    """Something that does not go on by itself; `settle` is where to POST when it has been looked at."""

    kind = serializers.CharField()
    uuid = serializers.UUIDField()
    name = serializers.CharField()
    url = serializers.CharField()
    activity = serializers.CharField(help_text="What a job was doing to it; empty for a job itself.")
    code = serializers.ChoiceField(["no_job", "past_deadline", "job_stuck"])
    reason = serializers.CharField()
    advice = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    job = serializers.CharField(allow_null=True)
    settle = serializers.CharField()


@extend_schema_serializer(many=False)
class StuckListSerializer(serializers.Serializer[Any]):
    """All on one page, at most 500 of a kind, in the envelope that every list has."""

    results = StuckSerializer(many=True)
    next = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    count_is_estimate = serializers.BooleanField()
