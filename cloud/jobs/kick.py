"""Having a worker go on with a job.

A message that is lost, or cannot be sent because the broker is away, is made good by the sweep: whoever calls this
after a commit lets it fail (`on_commit(..., robust=True)`).
"""

from uuid import UUID

from cloud.celery import app


def kick(job: UUID, queue: str = "control") -> None:
    """Put the job before the workers of this queue."""
    app.send_task("jobs.advance", kwargs={"job": str(job), "queue": queue}, queue=queue, ignore_result=True)
