"""The audit trail: every act leaves a record, in the transaction of the act itself."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from cloud.common.actor import Actor
from cloud.common.resources import kind_of
from cloud.events.models import AuditRecord, Result


def record(
    action: str,
    *,
    actor: Actor,
    resource: Any = None,
    job: Any = None,
    detail: dict[str, Any] | None = None,
    result: str = "",
) -> AuditRecord:
    """Write down an act. Call it inside the act's transaction.

    `resource` is the row acted on (kept by kind, uuid and name), `job` the job that carries the act out. Without
    `result` an act with a job counts as accepted until `settle`, any other as succeeded. `detail` is plain JSON and
    must hold no secret.
    """
    row = _row(action, actor=actor, resource=resource, job=job, detail=detail, result=result)
    row.save(force_insert=True)
    return row


def record_all(action: str, acted: Iterable[tuple[Any, Any]], *, actor: Actor) -> None:
    """Write down one act on several resources, each with the job that carries it out: (resource, job)."""
    AuditRecord.objects.bulk_create([_row(action, actor=actor, resource=resource, job=job) for resource, job in acted])


def _row(
    action: str,
    *,
    actor: Actor,
    resource: Any = None,
    job: Any = None,
    detail: dict[str, Any] | None = None,
    result: str = "",
) -> AuditRecord:
    project_uuid, project_name = _project(resource, actor)
    return AuditRecord(
        action=action,
        actor_uuid=actor.user,
        actor_name=actor.name[:255],
        via=actor.via,
        address=actor.address[:64],
        request_id=actor.request_id[:64],
        project_uuid=project_uuid,
        project_name=project_name[:255],
        resource_type=kind_of(resource) if resource is not None else "",
        resource_uuid=getattr(resource, "pk", None),
        resource_name=str(resource)[:255] if resource is not None else "",
        job_uuid=getattr(job, "pk", None),
        result=result or (Result.ACCEPTED if job is not None else Result.SUCCEEDED),
        detail=detail or {},
    )


def settle(job_uuid: UUID, result: str, *, detail: dict[str, Any] | None = None) -> None:
    """Note how the job of an accepted act ended: `succeeded`, `failed` or `cancelled`, with why."""
    changes: dict[str, Any] = {"result": Result(result)}
    if detail:
        changes["detail"] = detail
    AuditRecord.objects.filter(job_uuid=job_uuid, result=Result.ACCEPTED).update(**changes)


def _project(resource: Any, actor: Actor) -> tuple[UUID | None, str]:
    project = getattr(resource, "project", None)
    if project is not None:
        return project.pk, str(project)
    return getattr(resource, "project_id", None) or actor.project, ""
