"""Jobs as rows: the cursor and the context are committed with each step, so any process may die at any time."""

import uuid
from typing import Self

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Func, Q, Value

from cloud.common.models import ResourceQuerySet


class JobState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STUCK = "stuck"


LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING, JobState.UNDOING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.STUCK)


class JobQuerySet(ResourceQuerySet):
    def live(self) -> Self:
        return self.filter(finished_at=None)


class Job(models.Model):
    """A user's verb at work: one workflow on one main resource.

    `cursor` is the index of the step to run (or to undo) next. While a step waits, `waiting` names what it waits for:
    {command key: {"agent", "sent_at", "answer"}} for a machine, {topic: {}} for a condition, {"pause": {"until"}}
    before another attempt; nothing runs then. The lease is by database clock. `sequence` orders the jobs of a resource
    for agents. Actor and project are kept by uuid and name: the record outlives both.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    sequence = models.BigIntegerField(unique=True, db_default=Func(Value("job_sequence"), function="nextval"))
    workflow = models.CharField(max_length=64)
    state = models.CharField(max_length=16, choices=JobState, default=JobState.QUEUED)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")
    resource_type = models.CharField(max_length=64)
    resource_uuid = models.UUIDField(null=True)
    resource_name = models.CharField(max_length=255, blank=True)
    project_id = models.UUIDField(null=True)
    actor_uuid = models.UUIDField(null=True)
    actor_name = models.CharField(max_length=255)
    cursor = models.IntegerField(default=0)
    attempt = models.IntegerField(default=1)
    context = models.JSONField(default=dict)
    waiting = models.JSONField(default=dict)
    step_deadline_at = models.DateTimeField(null=True)
    is_cancelled = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=64, blank=True, default="")
    percent = models.FloatField(default=0)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="job_created"),
            models.Index(fields=["resource_uuid", "created_at"], name="job_resource_created"),
            models.Index(fields=["project_id", "created_at"], name="job_project_created"),
            models.Index(fields=["lease_until"], name="job_live", condition=Q(finished_at=None)),
            GinIndex(fields=["waiting"], name="job_waiting", condition=Q(finished_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} {self.resource_name}"


class JobStep(models.Model):
    """What happened in one step of a job, for people: when it ran, whether it was undone, what went wrong."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps")
    position = models.IntegerField()
    name = models.CharField(max_length=64)
    state = models.CharField(max_length=16, default="queued")
    error = models.JSONField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="job_step_once")]


class JobResource(models.Model):
    """A resource that a job changes. One live job a resource: the lock that makes a second act answer 409."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="resources")
    resource_type = models.CharField(max_length=64)
    resource_uuid = models.UUIDField()
    is_held = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["resource_uuid"], condition=Q(is_held=True), name="job_resource_held_once"),
            models.UniqueConstraint(fields=["job", "resource_uuid"], name="job_resource_named_once"),
        ]
