"""What nobody is at work on any more, and settling it: never freed is what may still be in use, unless it is said.

A resource is stuck when its `activity` has no live job, or one that is past its deadline. A job is stuck when
something of it could not be taken back; a person looks at it, and says so here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloud.common.actor import Actor
from cloud.common.acts import Check, acting, each
from cloud.common.api.links import url_of
from cloud.common.errors import Conflict, Problem
from cloud.common.models import Stateful, busy
from cloud.common.relations import Effect
from cloud.common.resources import kind_of
from cloud.events.services import audit
from cloud.jobs import cleanups, words
from cloud.jobs.models import Job, JobResource, JobState, JobStep
from cloud.jobs.services import BATCH
from cloud.jobs.workflow import WORKFLOWS, Context

# A live job this long past its step's deadline, or this long without having begun, is not going on.
GRACE, BEGINS_WITHIN = timedelta(minutes=1), timedelta(minutes=15)
MOST = 500
REASONS = {
    "no_job": gettext_lazy("No job is at work on it any more."),
    "past_deadline": gettext_lazy("Its job is past its deadline."),
    "job_stuck": gettext_lazy("Something of this job could not be taken back."),
}
ADVICE = {
    "no_job": gettext_lazy("Settle its state: the platform looks at what is there, and says so."),
    "past_deadline": gettext_lazy("Look at the job's step and its machine, or cancel the job."),
    "job_stuck": gettext_lazy("Look at its steps and at the machine, then settle the job."),
}

InUse = Callable[[Any], Problem | str]
_in_use: list[InUse] = []


def register_use(question: InUse) -> None:
    """Say who knows whether a resource runs: a text that says where, "" when it does not, a Problem when nobody knows.

    What a job kept back for such a resource is not released.
    """
    if question not in _in_use:
        _in_use.append(question)


@dataclass(frozen=True)
class Stuck:
    """Something that does not go on by itself. `since` is when its job was opened or ended, or the row was changed."""

    kind: str
    uuid: Any
    name: str
    url: str
    activity: str
    code: str
    since: datetime | None
    job: str | None
    settle: str

    @property
    def reason(self) -> str:
        return str(REASONS[self.code])

    @property
    def advice(self) -> str:
        return str(ADVICE[self.code])


def stuck(kind: str = "") -> list[Stuck]:
    """Everything that is stuck, the longest first, or what is of this kind; at most 500 of each. One query a kind."""
    found = [] if kind not in ("", "job") else [_of_job(job) for job in _stuck_jobs()[:MOST]]
    for model in apps.get_models():
        if issubclass(model, Stateful) and kind in ("", kind_of(model)):
            found += [_of_row(row) for row in _stuck_rows(model)[:MOST]]
    return sorted(found, key=lambda each: each.since.timestamp() if each.since else 0.0)


def _past_deadline() -> Q:
    return Q(step_deadline_at__lt=Now() - GRACE) | Q(
        state=JobState.QUEUED, started_at=None, created_at__lt=Now() - BEGINS_WITHIN
    )


def _stuck_jobs() -> Any:
    return Job.objects.filter(state=JobState.STUCK, settled_at=None).exclude(workflow=BATCH).order_by("finished_at")


def _stuck_rows(model: Any) -> Any:
    holding = Job.objects.filter(resources__resource_uuid=OuterRef("pk"), resources__is_held=True)
    # One that has ended and owes a clean-up to a machine that is away is not lost: it is waited for.
    live = holding.filter(Q(finished_at=None) | Q(clean_ups__state="owed"))
    late = holding.filter(finished_at=None).filter(_past_deadline())
    return (
        model._default_manager.exclude(activity="")
        .filter(~Exists(live) | Exists(late))
        .annotate(late_job=Subquery(late.values("pk")[:1]))
        .order_by("updated_at")
    )


def _of_job(job: Job) -> Stuck:
    url = url_of(job)
    name = f"{words.verb(job)}: {job.resource_name}"
    return Stuck("job", job.pk, name, url, "", "job_stuck", job.finished_at, url, f"{url}settle/")


def _of_row(row: Any) -> Stuck:
    url = url_of(row)
    code, job = ("past_deadline", f"/api/v1/jobs/{row.late_job}/") if row.late_job else ("no_job", None)
    settle = f"{job}cancel/" if job else f"{url}settle-state/"
    return Stuck(kind_of(row), row.pk, str(row), url, row.activity, code, row.updated_at, job, settle)


def _no_live_job(rows: Sequence[Any], actor: Actor) -> dict[Any, Problem]:
    held = JobResource.objects.filter(is_held=True, resource_uuid__in=[row.pk for row in rows])
    live = dict(held.filter(job__finished_at=None).values_list("resource_uuid", "job_id"))
    owing = dict(held.filter(job__clean_ups__state="owed").values_list("resource_uuid", "job_id"))
    against: dict[Any, Problem] = dict(cleanups.pending(owing))
    by_key = {row.pk: row for row in rows}
    return {key: busy(by_key[key], f"/api/v1/jobs/{job}/") for key, job in live.items()} | against


NO_LIVE_JOB: Check = _no_live_job


def free(row: Any) -> None:
    """Take off a row what ended jobs left on it: their lock and their activity."""
    JobResource.objects.filter(resource_uuid=row.pk, is_held=True, job__finished_at__isnull=False).update(is_held=False)
    type(row)._default_manager.filter(pk=row.pk).update(activity="")


def record(row: Any, *, actor: Actor, before: dict[str, Any]) -> None:
    """Write down what settling a row changed; `before` are the fields as they were."""
    row.refresh_from_db()
    now = {name: getattr(row, name) for name in before}
    audit.record("state.settle", actor=actor, resource=row, detail={"before": before, "after": now})


# stuck jobs


def _is_stuck(job: Job, actor: Actor) -> Problem | None:
    if job.state != JobState.STUCK or job.workflow == BATCH:
        return Conflict(
            _("The job is %(state)s: there is nothing to settle.") % {"state": job.state}, code="wrong_state"
        )
    if job.settled_at is not None:
        return Conflict(
            _("The job was settled by %(name)s already.") % {"name": job.settled_by}, code="already_settled"
        )
    return None


def _locked(job: Job) -> Job:
    found: Job = Job.objects.select_for_update().get(pk=job.pk)
    return found


def effects(job: Job) -> list[Effect]:
    """What settling a stuck job does: what may be left where it was put, and what is given back, or not, and why."""
    told = [_step_effect(job, step, "unknown", _("%(step)s: what it made may still be there.")) for step in _left(job)]
    keeps = _keeps_because(job)
    for step in _kept(job):
        if keeps:
            told.append(_step_effect(job, step, "stays", _("%(step)s: is not given back. %(why)s"), why=str(keeps)))
        else:
            told.append(_step_effect(job, step, "released", _("%(step)s: is given back, for others to take.")))
    return told


def _step_effect(job: Job, step: JobStep, effect: str, text: str, **values: str) -> Effect:
    label = str(words.label_of(step, job))
    return Effect(f"step.{step.name}", effect, 1, f"{step.position}", said=text % {"step": label, **values})


def _left(job: Job) -> list[JobStep]:
    return list(job.steps.filter(state="undo_failed").order_by("position"))


def _kept(job: Job) -> list[JobStep]:
    return list(job.steps.filter(state="kept").order_by("-position"))


def _keeps_because(job: Job) -> str:
    """Why what the job kept back is not released now; empty when it may be. Raises Problem when nobody knows."""
    later = Job.objects.filter(resource_uuid=job.resource_uuid, sequence__gt=job.sequence)
    if later.exclude(state__in=(JobState.FAILED, JobState.CANCELLED)).exists():
        return _("A later job works with it.")
    row = Context(job).resource if job.resource_type else None
    for question in _in_use if row is not None else ():
        said = question(row)
        if isinstance(said, Problem):
            raise said
        if said:
            return said
    return ""


@acting("job.settle", checks=[each(_is_stuck)], lock=_locked)
def settle(job: Job, *, actor: Actor) -> Job:
    """A person says of a stuck job that they have looked at it: gives back what it kept, unless that is in use.

    Raises Conflict when nobody knows whether it is in use, or a job is at work on the resource.
    """
    about = [job.resource_uuid] if job.resource_uuid else []
    at_work = JobResource.objects.filter(resource_uuid__in=about, is_held=True).exclude(job=job).first()
    if at_work is not None:
        raise busy(job.resource_name, f"/api/v1/jobs/{at_work.job_id}/")
    told = effects(job)
    keeps, ctx = _keeps_because(job), Context(job)
    if not keeps:
        for step in _kept(job):
            known = words.step_of(job, step.position)
            if known is not None and known.__name__ == step.name:
                known().undo(ctx)
            JobStep.objects.filter(pk=step.pk).update(state="undone", finished_at=Now())
    job.steps.filter(state="undo_failed").update(state="settled")
    if not keeps and job.workflow in WORKFLOWS and job.resource_type:
        WORKFLOWS[job.workflow]().failed(ctx)
    Job.objects.filter(pk=job.pk).update(settled_at=Now(), settled_by=actor.name[:255])
    audit.record("job.settle", actor=actor, resource=job, detail={"effects": [effect.text for effect in told]})
    job.refresh_from_db()
    return job
