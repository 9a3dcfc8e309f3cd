"""The resources that a job holds, and what they show of it."""

from typing import Any

from django.apps import apps
from django.db import connection

from cloud.jobs.models import Job

_FREE = """
UPDATE jobs_jobresource SET is_held = false WHERE job_id = %s AND is_held RETURNING resource_type, resource_uuid
"""


def free(job: Job) -> None:
    """Take the job's locks off its resources, and its activity with them; done before is fine."""
    with connection.cursor() as cursor:
        cursor.execute(_FREE, [job.pk])
        _set_activity(cursor.fetchall(), "")


def show(job: Job, activity: str) -> None:
    """Have what the job holds say what is done to it now."""
    _set_activity(list(job.resources.filter(is_held=True).values_list("resource_type", "resource_uuid")), activity)


def _set_activity(held: list[tuple[str, Any]], activity: str) -> None:
    kinds: dict[str, list[Any]] = {}
    for kind, uuid in held:
        kinds.setdefault(kind, []).append(uuid)
    for kind, uuids in kinds.items():
        model = apps.get_model(kind)
        if any(field.name == "activity" for field in model._meta.fields):
            model._default_manager.filter(pk__in=uuids).update(activity=activity)
