"""How long a job will still take: by how long its steps took of late, and by the bytes its machine has yet to move."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from cloud.common.wire import Document
from cloud.jobs.models import Job, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS

REMEMBERED_S = 60.0
LOOKED_AT = 2000
_MEDIANS = """
SELECT j.workflow, s.name, percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM s.finished_at - s.started_at))
FROM (
    SELECT uuid, workflow FROM jobs_job WHERE state = 'succeeded' AND workflow <> 'batch'
    ORDER BY created_at DESC, uuid DESC LIMIT %s
) j
JOIN jobs_jobstep s ON s.job_id = j.uuid
WHERE s.state = 'succeeded' AND s.started_at IS NOT NULL AND s.finished_at IS NOT NULL
GROUP BY j.workflow, s.name
"""

History = dict[tuple[str, str], float]
_remembered: dict[str, Any] = {}


def forget() -> None:
    """Look at the history again the next time."""
    _remembered.clear()


def history() -> History:
    """The median seconds of each step of each workflow, among the latest 2,000 jobs that succeeded; read once a minute
    in each process."""
    now = time.monotonic()
    if _remembered.get("until", 0) < now:
        with connection.cursor() as cursor:
            cursor.execute(_MEDIANS, [LOOKED_AT])
            medians = {(workflow, name): float(median) for workflow, name, median in cursor.fetchall()}
        _remembered.update(until=now + REMEMBERED_S, medians=medians)
    medians_: History = _remembered["medians"]
    return medians_


def remaining_s(jobs: Sequence[Job], said: dict[Any, Document], now: float) -> dict[UUID, int | None]:
    """Seconds until each job ends, None where that is not known. `said` is what machines say of the steps at work, by
    job; `now` is in seconds since the epoch."""
    live = [job for job in jobs if job.finished_at is None and job.state in (JobState.QUEUED, JobState.RUNNING)]
    begun = dict(
        JobStep.objects.filter(job__in=[job.pk for job in live if job.started_at], state="running").values_list(
            "job", "started_at"
        )
        if any(job.started_at for job in live)
        else ()
    )
    found: dict[UUID, int | None] = {job.pk: None for job in jobs}
    for job in live:
        since = begun.get(job.pk)
        elapsed = max(0.0, now - since.timestamp()) if since else 0.0
        left = _of_batch(job, now) if job.workflow == "batch" else _of_steps(job, elapsed, said.get(job.pk))
        found[job.pk] = None if left is None else round(left)
    return found


def _of_batch(job: Job, now: float) -> float | None:
    if not 0 < job.percent <= 100:
        return None
    elapsed = now - (job.started_at or job.created_at).timestamp()
    return max(0.0, elapsed) * (100 - job.percent) / job.percent


def _of_steps(job: Job, elapsed: float, said: Document | None) -> float | None:
    workflow = WORKFLOWS.get(job.workflow)
    if workflow is None:
        return None
    medians = history()
    known = [medians.get((job.workflow, step.__name__)) for step in workflow.steps]
    if all(median is None for median in known):
        return _of_bytes(said, elapsed) if job.cursor >= len(known) - 1 else None
    # A step that was never seen to take time is one that is mostly passed over.
    ahead = sum(median or 0.0 for median in known[job.cursor + 1 :])
    here = known[job.cursor] if job.cursor < len(known) else 0.0
    by_bytes = _of_bytes(said, elapsed)
    return ahead + (by_bytes if by_bytes is not None else max(0.0, (here or 0.0) - elapsed))


def _of_bytes(said: Document | None, elapsed: float) -> float | None:
    speed = bytes_per_s(said, elapsed)
    if said is None or not speed:
        return None
    return float(max(0, said["bytes_total"] - said["bytes_done"]) / speed)


def bytes_per_s(said: Document | None, elapsed: float) -> float | None:
    """How fast a machine moves the bytes of its step: as it says, else as it did since the step began."""
    if not said or not said.get("bytes_total"):
        return None
    if said.get("bytes_per_s"):
        return float(said["bytes_per_s"])
    return said.get("bytes_done", 0) / elapsed if elapsed > 0 and said.get("bytes_done") else None
