"""Jobs as rows: the cursor and the context are committed with each step, so any process may die at any time."""

import uuid
from typing import Self

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Func, JSONField, Q, Value
from django.db.models.functions import Now

from cloud.common.models import ResourceQuerySet
from cloud.common.search import search_index, search_text


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

    `plan` names the steps the job was opened with, by position: a workflow that is changed by an upgrade changes the
    jobs opened after it. `look_at` is when the sweep looks at the job again, if nothing has woken it before.
    `settled_at` is when a person said of a stuck job that they have looked at it.
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
    plan = models.JSONField(default=list, db_default=Value([], JSONField()))
    context = models.JSONField(default=dict)
    waiting = models.JSONField(default=dict)
    step_deadline_at = models.DateTimeField(null=True)
    look_at = models.DateTimeField(null=True)
    is_cancelled = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=64, blank=True, default="")
    percent = models.FloatField(default=0)
    error = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    search_text = search_text("resource_name", "workflow")
    settled_at = models.DateTimeField(null=True)
    settled_by = models.CharField(max_length=255, blank=True, default="")

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="job_created"),
            models.Index(fields=["resource_uuid", "created_at"], name="job_resource_created"),
            models.Index(fields=["project_id", "created_at"], name="job_project_created"),
            models.Index(fields=["lease_until"], name="job_live", condition=Q(finished_at=None)),
            GinIndex(fields=["waiting"], name="job_waiting", condition=Q(finished_at=None)),
            models.Index(fields=["finished_at"], name="job_finished", condition=Q(finished_at__isnull=False)),
            search_index("job_search"),
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


class ItemState(models.TextChoices):
    """Of what has no job of its own, or none yet. What has one is in that job's state."""

    WAITING = "waiting"
    REFUSED = "refused"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"


class JobItem(models.Model):
    """What became of one resource of many: its job, or why there is none.

    `state` and `error` are copied from the job when the parent ends, so that they outlive it. `resource_uuid` is null
    for what was refused before it was made.
    """

    parent = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField()
    resource_type = models.CharField(max_length=64)
    resource_uuid = models.UUIDField(null=True)
    resource_name = models.CharField(max_length=255, blank=True, default="")
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="item")
    state = models.CharField(max_length=16, default=ItemState.WAITING)
    error = models.JSONField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["parent", "position"], name="job_item_once")]


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


class CleanUpState(models.TextChoices):
    OWED = "owed"
    DONE = "done"
    FAILED = "failed"


class CleanUpQuerySet(models.QuerySet["CleanUp"]):
    def owed(self) -> Self:
        return self.filter(state=CleanUpState.OWED)


class CleanUp(models.Model):
    """An undo that an ended job still owes, because the machine that had to do it was away.

    `position` and `name` say which step of the job's plan; `agent` is the machine, None for a step of control's own
    that gives back what was reserved and waits for all rows of machines. The job's resources stay locked while one of
    its rows is owed. `attempt` is part of the command's key; `sent_at` is when the machine was asked last, `due_at`
    when it may be asked again. A row that was `done` without the machine says why in `error`.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="clean_ups")
    position = models.IntegerField()
    name = models.CharField(max_length=64)
    agent = models.UUIDField(null=True)
    machine = models.CharField(max_length=255, blank=True, default="")
    state = models.CharField(max_length=16, choices=CleanUpState, default=CleanUpState.OWED)
    error = models.JSONField(null=True)
    attempt = models.IntegerField(default=1)
    sent_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    done_at = models.DateTimeField(null=True)

    objects = CleanUpQuerySet.as_manager()

    class Meta:
        ordering = ["-position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="clean_up_once")]
        indexes = [
            models.Index(fields=["agent"], name="clean_up_owed_agent", condition=Q(state="owed")),
            models.Index(fields=["job"], name="clean_up_owed_job", condition=Q(state="owed")),
        ]
