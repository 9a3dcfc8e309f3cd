"""Opening and cancelling jobs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.events.services import audit
from cloud.jobs import agents, cleanups, drain, leases
from cloud.jobs.kick import kick
from cloud.jobs.models import Job, JobItem, JobResource, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS, Workflow, steps_of

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
    record. Raises Conflict, with the running job's link, when another job holds one of them or still owes a clean-up
    there; Unavailable while the platform takes no new work.
    """
    opening = Opening(resource, context or {}, tuple(resources))
    return open_many(workflow, [opening], actor=actor, parent=parent)[0]


@dataclass(frozen=True)
class Opening:
    """A job to open: on which resource, with what context, and the further resources it changes."""

    resource: models.Model
    context: dict[str, Any] = field(default_factory=dict)
    resources: tuple[models.Model, ...] = ()


def open_many(
    workflow: type[Workflow], wanted: Sequence[Opening], *, actor: Actor, parent: Job | None = None
) -> list[Job]:
    """Open a job for each of these, as `open` does, in a number of statements that does not grow with theirs."""
    drain.expect_taking_work(actor)
    look_at = leases.look_at()
    plan = [step.__name__ for step in workflow.steps]
    jobs = [
        Job(
            workflow=workflow.name,
            parent=parent,
            resource_type=each.resource._meta.label,
            resource_uuid=each.resource.pk,
            resource_name=str(each.resource)[:255],
            project_id=getattr(each.resource, "project_id", None),
            actor_uuid=actor.user,
            actor_name=actor.name,
            context=each.context,
            plan=plan,
            look_at=look_at,
        )
        for each in wanted
    ]
    held = [(job, row) for job, each in zip(jobs, wanted, strict=True) for row in (each.resource, *each.resources)]
    _hold(sorted(held, key=lambda pair: str(pair[1].pk)), workflow.activity)
    # The jobs draw their numbers while the resources are held, so that no later job of theirs has a lower one.
    Job.objects.bulk_create(jobs)
    JobStep.objects.bulk_create(
        JobStep(job=job, position=position, name=step.__name__)
        for job in jobs
        for position, step in enumerate(workflow.steps)
    )
    if parent is not None:
        begins = parent.items.count()
        JobItem.objects.bulk_create(
            JobItem(
                parent=parent,
                position=begins + number,
                resource_type=job.resource_type,
                resource_uuid=job.resource_uuid,
                resource_name=job.resource_name,
                job=job,
            )
            for number, job in enumerate(jobs)
        )
    audit.record_all(workflow.name, [(each.resource, job) for job, each in zip(jobs, wanted, strict=True)], actor=actor)
    for job in jobs:
        _kick_on_commit(job.uuid, first_queue(workflow))
    return jobs


def _kick_on_commit(job: UUID, queue: str) -> None:
    transaction.on_commit(lambda: kick(job, queue), robust=True)


def first_queue(workflow: type[Workflow]) -> str:
    return workflow.steps[0].queue if workflow.steps else "control"


_HOLD = """
INSERT INTO jobs_jobresource (job_id, resource_type, resource_uuid, is_held)
SELECT job::uuid, kind, resource::uuid, true
FROM unnest(%(jobs)s::text[], %(kinds)s::text[], %(resources)s::text[]) AS held(job, kind, resource)
ON CONFLICT DO NOTHING
"""


def _hold(held: list[tuple[Job, models.Model]], activity: str) -> None:
    """Take these resources, in this order, each for its job; the jobs' rows may come after, in the same transaction."""
    arguments = {
        "jobs": [str(job.pk) for job, _row in held],
        "kinds": [row._meta.label for _job, row in held],
        "resources": [str(row.pk) for _job, row in held],
    }
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, arguments)
        is_taken = cursor.rowcount < len(held)
    if is_taken:
        taken = JobResource.objects.filter(is_held=True, resource_uuid__in=[row.pk for _job, row in held])
        cleanups.expect_none(*(row.pk for _job, row in held))
        raise Conflict(
            _("Another job is at work on this resource."),
            code="busy",
            advice=_("Wait for that job or cancel it, then try again."),
            job=_link(taken.exclude(job__in=[job.pk for job, _row in held])),
        )
    idle: dict[type[models.Model], list[Any]] = defaultdict(list)
    for _job, row in held:
        if activity and getattr(row, "activity", activity) != activity:
            row.activity = activity  # type: ignore[attr-defined]
            idle[type(row)].append(row.pk)
    for model, keys in idle.items():
        model._default_manager.filter(pk__in=keys).update(activity=activity)


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
        started_at=Now(),
        context={"verb": verb, "count": count},
    )


def holders(rows: Sequence[Any]) -> dict[Any, str | Problem]:
    """Where the API shows the job that holds each row, by key; a Problem where it has ended and owes a clean-up."""
    held = JobResource.objects.filter(is_held=True, resource_uuid__in=[row.pk for row in rows])
    found = list(held.values_list("resource_uuid", "job_id", "job__finished_at"))
    owing = cleanups.pending({key: job for key, job, ended in found if ended})
    return {key: owing[key] if ended else f"/api/v1/jobs/{job}/" for key, job, ended in found}


def _locked(job: Job) -> Job:
    found: Job = Job.objects.select_for_update().get(pk=job.pk)
    return found


def _is_cancellable(job: Job, actor: Actor) -> Problem | None:
    if job.finished_at or job.state not in (JobState.QUEUED, JobState.RUNNING):
        return Conflict(
            _("The job is %(state)s and cannot be cancelled any more.") % {"state": job.state}, code="wrong_state"
        )
    step = _step_at_work(job)
    if step is not None and not step.is_cancellable:
        return Conflict(_("The step at work cannot be interrupted."), code="not_cancellable")
    return None


def _step_at_work(job: Job) -> Any:
    steps = steps_of(job) if job.workflow in WORKFLOWS else []
    return steps[min(job.cursor, len(steps) - 1)] if steps else None


@acting("job.cancel", checks=[each(_is_cancellable)], lock=_locked)
def _cancel(job: Job, *, actor: Actor) -> Job:
    job.state, job.is_cancelled = JobState.CANCELLING, True
    job.save(update_fields=["state", "is_cancelled"])
    if job.workflow == BATCH:
        # Those that wait do not begin; the sweep, too, sees that they do not.
        transaction.on_commit(lambda: _settle_parent(job.pk), robust=True)
    elif step := _step_at_work(job):
        keys = {key: held["agent"] for key, held in job.waiting.items() if "agent" in held}
        transaction.on_commit(lambda: agents.abort(keys), robust=True)
        transaction.on_commit(lambda: kick(job.uuid, step.queue), robust=True)
    audit.record("job.cancel", actor=actor, resource=job, job=job)
    return job


def cancel(job: Job, *, actor: Actor) -> Job:
    """Stop a job where its step allows, and undo what it did. Raises Conflict when it is too late or not possible."""
    job = _cancel(job, actor=actor)
    for child in job.children.filter(finished_at=None) if job.workflow == BATCH else ():
        try:
            cancel(child, actor=actor)
        except Conflict:
            continue  # its end is near: the batch reports it with its own result
    return job


cancel.act = _cancel.act  # type: ignore[attr-defined]


def _settle_parent(parent: UUID) -> None:
    from cloud.jobs import batches

    batches.settle(parent)
