"""Overrides of declared settings: a global value, or one for a single resource."""

import uuid
from typing import Any

from django.db import models
from django.db.models import Q


class Override(models.Model):
    """A value that an administrator gave a setting. Without a scope it is the global value."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128)
    scope_type = models.CharField(max_length=64, blank=True, default="")
    scope_uuid = models.UUIDField(null=True)
    value = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    notes: list[Any] = []  # what whoever has just changed it should know

    class Meta:
        ordering = ["name", "scope_type", "scope_uuid"]
        constraints = [
            models.UniqueConstraint(
                fields=["name", "scope_type", "scope_uuid"], nulls_distinct=False, name="config_override_once"
            ),
            models.CheckConstraint(
                condition=Q(scope_type="", scope_uuid=None) | (~Q(scope_type="") & Q(scope_uuid__isnull=False)),
                name="config_override_scope_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.scope_type} {self.scope_uuid or ''}".rstrip()
