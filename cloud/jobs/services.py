"""Opening and cancelling jobs."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.db.models import Func, Value
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.events.services import audit
from cloud.jobs import agents
from cloud.jobs.kick import kick
from cloud.jobs.models import Job, JobResource, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS, Workflow

BATCH = "batch"


def open(
    workflow: type[Workflow],
    *,
    resource: models.Model,
    actor: Actor,
    context: dict[str, Any] | None = None,
    resources: Iterable[models.Model] = (),
    parent: Job | None = None,
) -> Job:
    """Open a job inside the caller's transaction; it starts when that commits.

    Takes the lock on `resource` and the further `resources` the job changes, sets their activity and writes the audit
    record. Raises Conflict, with the running job's link, when another job holds one of them.
    """
    job = Job.objects.create(
        workflow=workflow.name,
        parent=parent,
        resource_type=resource._meta.label,
        resource_uuid=resource.pk,
        resource_name=str(resource)[:255],
        project_id=getattr(resource, "project_id", None),
        actor_uuid=actor.user,
        actor_name=actor.name,
        context=context or {},
    )
    JobStep.objects.bulk_create(
        JobStep(job=job, position=position, name=step.__name__) for position, step in enumerate(workflow.steps)
    )
    _hold(job, sorted([resource, *resources], key=lambda held: str(held.pk)), workflow.activity)
    # Drawn while the resources are held, so that no later job of theirs has a lower number.
    Job.objects.filter(pk=job.pk).update(sequence=Func(Value("job_sequence"), function="nextval"))
    audit.record(workflow.name, actor=actor, resource=resource, job=job)
    transaction.on_commit(lambda: kick(job.uuid, first_queue(workflow)), robust=True)
    return job


def first_queue(workflow: type[Workflow]) -> str:
    return workflow.steps[0].queue if workflow.steps else "control"


def _hold(job: Job, resources: list[models.Model], activity: str) -> None:
    JobResource.objects.bulk_create(
        [JobResource(job=job, resource_type=held._meta.label, resource_uuid=held.pk) for held in resources],
        ignore_conflicts=True,
    )
    if JobResource.objects.filter(job=job).count() < len(resources):
        taken = JobResource.objects.filter(is_held=True, resource_uuid__in=[held.pk for held in resources])
        raise Conflict(
            _("Another job is at work on this resource."),
            code="busy",
            advice=_("Wait for that job or cancel it, then try again."),
            job=_link(taken.exclude(job=job)),
        )
    for held in resources:
        if activity and hasattr(held, "activity"):
            held.activity = activity
            type(held)._default_manager.filter(pk=held.pk).update(activity=activity)


def at_work_on(resource: UUID) -> str | None:
    """Where the API shows the job that holds this resource; None when no job does."""
    return _link(JobResource.objects.filter(is_held=True, resource_uuid=resource))


def _link(holds: models.QuerySet[JobResource]) -> str | None:
    held = holds.first()
    return f"/api/v1/jobs/{held.job_id}/" if held else None


def open_batch(verb: str, *, actor: Actor, project_id: Any = None, count: int) -> Job:
    """Open a parent job that holds nothing itself; its children are opened with `parent=` in the same transaction."""
    return Job.objects.create(
        workflow=BATCH,
        state=JobState.RUNNING,
        resource_type="",
        resource_name=str(count),
        project_id=project_id,
        actor_uuid=actor.user,
        actor_name=actor.name,
        context={"verb": verb, "count": count},
    )


def cancel(job: Job, *, actor: Actor) -> Job:
    """Stop a job where its step allows, and undo what it did. Raises Conflict when it is too late or not possible."""
    actor.require("job.cancel", job)
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job.pk)
        if job.finished_at or job.state not in (JobState.QUEUED, JobState.RUNNING):
            raise Conflict(_("The job is %(state)s and cannot be cancelled any more.") % {"state": job.state})
        if job.workflow == BATCH:
            children = list(job.children.filter(finished_at=None))
            job.state, job.is_cancelled = JobState.CANCELLING, True
            job.save(update_fields=["state", "is_cancelled"])
        else:
            children = []
            step = WORKFLOWS[job.workflow].steps[min(job.cursor, len(WORKFLOWS[job.workflow].steps) - 1)]
            if not step.is_cancellable:
                raise Conflict(_("The step at work cannot be interrupted."), code="not_cancellable")
            job.state, job.is_cancelled = JobState.CANCELLING, True
            job.save(update_fields=["state", "is_cancelled"])
            keys = [key for key, held in job.waiting.items() if "agent" in held]
            transaction.on_commit(lambda: agents.abort(keys), robust=True)
            transaction.on_commit(lambda: kick(job.uuid, step.queue), robust=True)
        audit.record("job.cancel", actor=actor, resource=job, job=job)
    for child in children:
        try:
            cancel(child, actor=actor)
        except Conflict:
            continue  # its end is near: the batch reports it with its own result
    return job
