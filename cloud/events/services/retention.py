"""Taking away what is kept only for a while, in small batches so that nothing waits on it."""

from datetime import timedelta

from django.db import models
from django.utils import timezone

from cloud.events.models import AuditRecord, IdempotencyRecord
from cloud.events.services.answers import KEPT_FOR

BATCH = 5_000


def sweep(audit_kept_for: timedelta) -> int:
    """Delete expired answers, and audit records older than this; returns how many rows went."""
    now = timezone.now()
    return _delete(IdempotencyRecord, now - KEPT_FOR) + _delete(AuditRecord, now - audit_kept_for)


def _delete(model: type[models.Model], before: object) -> int:
    gone = 0
    while True:
        oldest = model._default_manager.filter(created_at__lt=before).order_by("created_at").values("pk")[:BATCH]
        deleted, _rows = model._default_manager.filter(pk__in=oldest).delete()
        gone += deleted
        if deleted < BATCH:
            return gone
