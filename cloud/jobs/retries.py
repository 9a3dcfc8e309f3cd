"""Trying what failed of many again, and nothing else."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from cloud.common import batches as door
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.events.services import audit
from cloud.jobs import batches
from cloud.jobs.models import Job, JobItem, JobState

AGAIN = (JobState.FAILED, JobState.CANCELLED, "refused")


def _has_ended(job: Job, actor: Actor) -> Problem | None:
    if job.workflow != batches.BATCH:
        return Conflict(
            _("This is the job of one resource."),
            code="not_many",
            advice=_("Do the act itself again: what failed was undone."),
        )
    if job.finished_at is None:
        return Conflict(
            _("The job has not ended yet."),
            code="not_ended",
            advice=_("Wait for its end or cancel it, then try again."),
        )
    if again := job.context.get("retried_by"):
        return Conflict(
            _("What failed of it was tried again already."),
            code="already_retried",
            advice=_("Retry what failed of that job."),
            job=f"/api/v1/jobs/{again}/",
        )
    if "prefix" not in job.context:
        return Conflict(_("What was asked for is not known any more."), code="wish_lost")
    return None


def _has_failures(jobs: Sequence[Any], actor: Actor) -> dict[Any, Problem]:
    state = Coalesce("job__state", "state")
    failed = JobItem.objects.annotate(at_end=state).filter(parent__in=[job.pk for job in jobs], at_end__in=AGAIN)
    have = set(failed.values_list("parent", flat=True).distinct())
    nothing = Conflict(_("Nothing of it failed."), code="nothing_to_retry")
    return {job.pk: nothing for job in jobs if job.pk not in have}


def _locked(job: Job) -> Job:
    found: Job = Job.objects.select_for_update().get(pk=job.pk)
    return found


@acting("job.retry", checks=[each(_has_ended), _has_failures], lock=_locked)
def retry(job: Job, *, actor: Actor, params: dict[str, Any] | None = None) -> Job:
    """Begin a new parent job over the items that failed, were refused or cancelled: same verb, same params.

    `params` add to those kept, for what is not kept: secrets. Of instances that failed to be made nothing is left: they
    are made anew, by the same wish and name. Those that are stuck are a person's to look at, and left out. Raises
    Conflict: `not_many`, `not_ended`, `nothing_to_retry`, `already_retried`, `wish_lost`. Begin the items of what it
    returns by `batches.go_on`.
    """
    context = job.context
    failed = list(
        job.items.annotate(at_end=Coalesce("job__state", "state")).filter(Q(at_end__in=AGAIN)).order_by("position")
    )
    is_making = context["act"] == "create"
    parent = batches.begin(
        door.Batch(
            prefix=context["prefix"],
            verb=context["act"],
            permission=context["verb"],
            model=job.resource_type or failed[0].resource_type,
            keys=[] if is_making else [item.resource_uuid for item in failed if item.resource_uuid],
            params={**context.get("params", {}), **({} if is_making else params or {})},
        ),
        actor=actor,
        names=[item.resource_name for item in failed] if is_making else (),
        wish=context.get("wish"),
    )
    Job.objects.filter(pk=job.pk).update(context={**context, "retried_by": str(parent.pk)})
    audit.record("job.retry", actor=actor, resource=job, detail={"retried_by": str(parent.pk), "items": len(failed)})
    return parent
