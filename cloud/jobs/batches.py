"""Parent jobs: they hold nothing, and end when their last child does, with a result per item."""

from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.jobs import failures
from cloud.jobs.leases import database_now
from cloud.jobs.models import Job, JobState


def settle(parent: UUID) -> None:
    """Bring a parent up to date with its children."""
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=parent, finished_at=None).first()
        if job is None:
            return
        counts = job.children.aggregate(
            total=Count("pk"),
            ended=Count("pk", filter=Q(finished_at__isnull=False)),
            succeeded=Count("pk", filter=Q(state=JobState.SUCCEEDED)),
        )
        job.percent = round(100 * counts["ended"] / (counts["total"] or 1), 1)
        if counts["ended"] == counts["total"]:
            failed = counts["total"] - counts["succeeded"]
            job.state = JobState.FAILED if failed else JobState.SUCCEEDED
            job.finished_at = database_now()
            if failed and job.is_cancelled:
                job.state, job.error = JobState.CANCELLED, failures.cancelled()
            elif failed:
                job.error = failures.document(
                    Problem(
                        filled(_("%(failed)d of %(total)d failed."), failed=failed, total=counts["total"]),
                        code="some_failed",
                        advice=_("Each item says why."),
                    )
                )
        job.save()
