"""What the doctor looks for in jobs: those that nobody goes on with, and what they hold beyond their end."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Look, check
from cloud.common.resources import kind_of
from cloud.common.text import filled
from cloud.jobs import cleaning
from cloud.jobs.kick import kick
from cloud.jobs.models import CleanUp, Job, JobResource, JobState, JobStep
from cloud.jobs.services import BATCH
from cloud.jobs.words import step_of

KICK = _("have a worker go on with it")


def _finding(kind: str, job: Job, detail: Any, *, is_mendable: bool = True) -> Finding:
    return Finding(
        kind,
        "job",
        str(job.pk),
        str(job),
        detail,
        since=job.step_deadline_at or job.started_at or job.created_at,
        is_mendable=is_mendable,
    )


def _kick(finding: Finding, actor: Actor) -> None:
    """Have it looked at again: every turn may be taken twice, so that this never does harm."""
    job = Job.objects.live().filter(pk=finding.resource_uuid).first()
    if job is not None:
        Job.objects.filter(pk=job.pk, lease_until__lt=Now()).update(lease_until=None, lease_owner="")
        step = step_of(job, job.cursor)
        transaction.on_commit(lambda: kick(job.pk, step.queue if step else "control"), robust=True)


def _unled() -> Any:
    """Live jobs that no worker has."""
    return Job.objects.live().filter(Q(lease_until=None) | Q(lease_until__lt=Now())).exclude(workflow=BATCH)


@check("job_stalled", "drift", label=_("A job that nobody goes on with"), mend=KICK, fix=_kick)
def stalled(look: Look) -> Iterator[Finding]:
    """Nothing is waited for, and yet no worker has had it for so long: the sweep does not run, or cannot."""
    late = Now() - timedelta(seconds=look.patience_s)
    at_work = JobStep.objects.filter(Q(started_at__gte=late) | Q(finished_at__gte=late), job=OuterRef("pk"))
    for job in _unled().filter(~Exists(at_work), waiting={}, created_at__lt=late):
        yield _finding("job_stalled", job, _("No worker goes on with it."))


@check("job_overdue", "drift", label=_("A job past its step's deadline"), mend=KICK, fix=_kick)
def overdue(look: Look) -> Iterator[Finding]:
    late = Now() - timedelta(seconds=look.patience_s)
    for job in Job.objects.live().filter(step_deadline_at__lt=late).exclude(state=JobState.UNDOING):
        yield _finding("job_overdue", job, _("The deadline of its step has passed."))


@check("job_undoing", "drift", label=_("A job that cannot be undone yet"), mend=KICK, fix=_kick)
def undoing(look: Look) -> Iterator[Finding]:
    """It waits for a machine, with all that it reserved; its last step ended that long ago."""
    late = Now() - timedelta(seconds=look.patience_s)
    moved = JobStep.objects.filter(Q(started_at__gte=late) | Q(finished_at__gte=late), job=OuterRef("pk"))
    waiting = Job.objects.live().filter(~Exists(moved), state=JobState.UNDOING, created_at__lt=late)
    for job in waiting.exclude(waiting={}):
        yield _finding("job_undoing", job, _("It waits for its machine to take back what it did."))


@check("job_stuck", "drift", label=_("A job that a person must look at"))
def stuck(look: Look) -> Iterator[Finding]:
    """Only while what it was about is there, and no later job of it has ended well."""
    better = Job.objects.filter(
        resource_uuid=OuterRef("resource_uuid"), sequence__gt=OuterRef("sequence"), state=JobState.SUCCEEDED
    )
    jobs = list(Job.objects.filter(~Exists(better), state=JobState.STUCK))
    present = _present({(job.resource_type, job.resource_uuid) for job in jobs})
    for job in jobs:
        if (job.resource_type, job.resource_uuid) in present:
            yield _finding("job_stuck", job, _("It could not be undone; see its steps."), is_mendable=False)


def _present(named: set[tuple[str, UUID | None]]) -> set[tuple[str, UUID | None]]:
    found: set[tuple[str, UUID | None]] = set()
    for label in {label for label, _uuid in named if label}:
        keys = [uuid for kind, uuid in named if kind == label]
        rows = apps.get_model(label)._default_manager.filter(pk__in=keys)
        found |= {(label, key) for key in rows.values_list("pk", flat=True)}
    return found


def _release_lock(finding: Finding, actor: Actor) -> None:
    ended = JobResource.objects.filter(pk=finding.thing["lock"], is_held=True, job__finished_at__isnull=False)
    ended.exclude(job__in=CleanUp.objects.owed().values("job")).update(is_held=False)


@check(
    "lock_leak",
    "leak",
    label=_("A lock of a job that has ended"),
    mend=_("release the lock"),
    fix=_release_lock,
)
def locks(look: Look) -> Iterator[Finding]:
    ended = JobResource.objects.filter(is_held=True, job__finished_at__isnull=False).select_related("job")
    for held in ended.exclude(job__in=CleanUp.objects.owed().values("job")):
        yield Finding(
            "lock_leak",
            _kind(held.resource_type),
            str(held.resource_uuid),
            held.job.resource_name,
            filled(_("The job %(job)s has ended and still holds it."), job=held.job_id),
            since=held.job.finished_at,
            thing={"lock": held.pk},
        )


def _clear_activity(finding: Finding, actor: Actor) -> None:
    """Under the row's lock: a job that begins now takes its own hold first, and writes its activity after us."""
    rows = apps.get_model(finding.thing["model"])._default_manager.filter(pk=finding.resource_uuid)
    rows.select_for_update(of=("self",)).first()
    if not JobResource.objects.filter(is_held=True, resource_uuid=finding.resource_uuid).exists():
        rows.update(activity="")


@check(
    "activity_leak",
    "leak",
    label=_("A resource that seems busy, and no job is at work on it"),
    mend=_("show it as idle"),
    fix=_clear_activity,
)
def activities(look: Look) -> Iterator[Finding]:
    held = JobResource.objects.filter(is_held=True, resource_uuid=OuterRef("pk"))
    for model in _stateful():
        rows: Any = model._default_manager.filter(~Exists(held)).exclude(activity="")
        for row in rows:
            yield Finding(
                "activity_leak",
                kind_of(model),
                str(row.pk),
                str(row),
                filled(_("It says “%(activity)s”, and no job holds it."), activity=row.activity),
                since=getattr(row, "updated_at", None),
                thing={"model": model._meta.label},
            )


def _stateful() -> list[type[models.Model]]:
    return [
        model for model in apps.get_models() if any(field.name == "activity" for field in model._meta.concrete_fields)
    ]


def _kind(label: str) -> str:
    return kind_of(apps.get_model(label)) if label else ""


def _pay(finding: Finding, actor: Actor) -> None:
    job = UUID(finding.thing["job"])
    transaction.on_commit(lambda: cleaning.go_on(job), robust=True)


@check(
    "clean_up_owed",
    "leak",
    label=_("A clean-up that a machine owes for long"),
    mend=_("ask the machine for it again"),
    fix=_pay,
)
def owed(look: Look) -> Iterator[Finding]:
    """An ended job left something on a machine that was away; until it is gone, what it reserved stays reserved."""
    late = Now() - timedelta(seconds=look.patience_s)
    for row in CleanUp.objects.owed().filter(created_at__lt=late).select_related("job"):
        yield Finding(
            "clean_up_owed",
            "job",
            str(row.job_id),
            f"{row.job}: {row.name}",
            _("What a job left there is not taken back yet."),
            host=row.machine,
            since=row.created_at,
            thing={"job": str(row.job_id), "position": row.position},
        )
