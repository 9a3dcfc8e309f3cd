"""What happened, kept apart from what exists: audit records and remembered answers outlive their users."""

import uuid

from django.db import models

from cloud.common.actor import Actor
from cloud.common.search import search_index, search_text


class Result(models.TextChoices):
    """How an act ended. `accepted` is an act whose job is still at work."""

    ACCEPTED = "accepted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class AuditQuerySet(models.QuerySet["AuditRecord"]):
    def visible_to(self, actor: Actor) -> "AuditQuerySet":
        """Everything for the platform; for others the acts in their projects and their own."""
        if actor.sees_all:
            return self
        visible = models.Q(project_uuid__in=actor.projects)
        if actor.user:
            visible |= models.Q(actor_uuid=actor.user)
        return self.filter(visible)


class AuditRecord(models.Model):
    """One act: who, what, on which resource, from where, with what result. Never changed but for the job's result."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=64)
    actor_uuid = models.UUIDField(null=True)
    actor_name = models.CharField(max_length=255)
    via = models.CharField(max_length=16, blank=True, default="")
    address = models.CharField(max_length=64, blank=True, default="")
    request_id = models.CharField(max_length=64, blank=True, default="")
    project_uuid = models.UUIDField(null=True)
    project_name = models.CharField(max_length=255, blank=True, default="")
    resource_type = models.CharField(max_length=64, blank=True, default="")
    resource_uuid = models.UUIDField(null=True)
    resource_name = models.CharField(max_length=255, blank=True, default="")
    job_uuid = models.UUIDField(null=True)
    result = models.CharField(max_length=16, choices=Result, default=Result.SUCCEEDED)
    detail = models.JSONField(default=dict, blank=True)
    search_text = search_text("action", "actor_name", "resource_name")

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="audit_created"),
            models.Index(fields=["project_uuid", "created_at"], name="audit_project_created"),
            models.Index(fields=["resource_uuid", "created_at"], name="audit_resource_created"),
            models.Index(fields=["actor_uuid", "created_at"], name="audit_actor_created"),
            models.Index(fields=["action", "created_at"], name="audit_action_created"),
            models.Index(fields=["job_uuid"], name="audit_job", condition=models.Q(job_uuid__isnull=False)),
            search_index("audit_search"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_name}".rstrip()


class IdempotencyRecord(models.Model):
    """The answer given to a POST with an `Idempotency-Key`, kept for 24 hours.

    `owner` is who sent it, `fingerprint` the SHA-256 of what was asked. The answer is sealed with a key outside the
    database, for it may hold a secret that is shown once.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    key_hash = models.CharField(max_length=64)
    fingerprint = models.CharField(max_length=64)
    answer = models.BinaryField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key_hash"], name="idempotency_key_once")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_created")]

    def __str__(self) -> str:
        return str(self.uuid)
