"""What makes good anything lost: run every two seconds by one process."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from cloud.common.errors import Problem
from cloud.common.wire import Command
from cloud.config.services import value
from cloud.jobs import agents, batches, cleaning, cleanups, leases
from cloud.jobs.kick import kick
from cloud.jobs.models import CleanUp, Job, JobItem, JobResource, JobState, JobStep
from cloud.jobs.services import BATCH
from cloud.jobs.turn import Turn
from cloud.jobs.workflow import AgentStep

log = logging.getLogger(__name__)

BATCH_SIZE = 500
DAY_S = 86_400


def run() -> None:
    """Go on with what nobody works on, send again what was lost, clean up, settle parents."""
    free = Job.objects.live().filter(Q(lease_until=None) | Q(lease_until__lt=Now())).exclude(workflow=BATCH)
    due = free.filter(Q(look_at=None) | Q(look_at__lte=Now()) | Q(step_deadline_at__lt=Now()))
    late = set(due.filter(step_deadline_at__lt=Now()).values_list("uuid", flat=True))
    looked_at: list[UUID] = []
    for job in due.order_by("sequence").iterator(chunk_size=BATCH_SIZE):
        if job.waiting.get("pause", {}).get("until", 0) > time.time():
            continue
        looked_at.append(job.uuid)
        try:
            _look_after(job, is_late=job.uuid in late)
        except Exception:
            log.exception("job %s: the sweep passes it over", job.uuid)  # and goes on with the others
    # Nobody is put before the workers every two seconds only because they are many and the line is long.
    Job.objects.filter(pk__in=looked_at, look_at__lte=Now()).update(look_at=leases.look_at())
    cleaning.sweep()
    for parent in Job.objects.live().filter(workflow=BATCH).values_list("uuid", flat=True):
        batches.look_after(parent)


def _look_after(job: Job, *, is_late: bool) -> None:
    waits = [held for held in job.waiting.values() if "agent" in held and "answer" not in held]
    if not waits or (is_late and job.state != JobState.UNDOING):
        step = Turn(job).step
        kick(job.uuid, step.queue if step else "control")
    elif time.time() - waits[0]["sent_at"] >= settings.MICA["resend_after_s"]:
        if agents.is_alive(waits[0]["agent"]):
            _send_again(job)
        else:
            kick(job.uuid)  # the turn says when it has waited long enough for a silent machine


@transaction.atomic
def _send_again(job: Job) -> None:
    """A key that is neither answered nor in the agent's heartbeat is sent again, the same attempt.

    The journal of the agent answers what it has done already. A silent agent is left alone until it is back, and has
    to clean up first what it owes.
    """
    locked = Job.objects.live().select_for_update(skip_locked=True).filter(pk=job.pk, lease_until=None).first()
    if locked is None:
        return
    step = Turn(locked).step
    waits = {key: held for key, held in locked.waiting.items() if "agent" in held and "answer" not in held}
    if not waits or not isinstance(step, AgentStep):
        return
    key, held = next(iter(waits.items()))
    alive = agents.heartbeat(held["agent"])
    if alive is None or key in alive.get("in_work", []):
        return
    if locked.state != JobState.UNDOING and cleanups.is_owed_to(held["agent"]):
        return
    made = _made_again(locked, step)
    if made is None:
        # Meanwhile there is nothing to ask any more, or no way to: the next turn sees that and says so.
        locked.waiting = {}
        transaction.on_commit(lambda: kick(locked.uuid, step.queue), robust=True)
    else:
        agent, command = made
        locked.waiting[key]["sent_at"] = time.time()
        transaction.on_commit(lambda: agents.send_command(agent, command, is_bulk=step.is_bulk), robust=True)
    locked.save(update_fields=["waiting"])


def _made_again(job: Job, step: AgentStep) -> tuple[str, Command] | None:
    try:
        return Turn(job).resend(step)
    except Problem:
        return None


def forget_old() -> None:
    """Delete jobs that ended long ago (a setting says how long), in batches: children before their parents.

    What still owes a clean-up stays, and whatever it is a part of.
    """
    before = Now() - timedelta(seconds=value("job.kept_for"))
    owing = CleanUp.objects.owed().filter(job=OuterRef("pk"))
    children = Job.objects.filter(parent=OuterRef("pk"))
    old = Job.objects.filter(~Exists(owing), ~Exists(children), finished_at__lt=before)
    while keys := list(old.order_by("finished_at").values_list("pk", flat=True)[:BATCH_SIZE]):
        _delete(keys)


@transaction.atomic
def _delete(keys: list[UUID]) -> None:
    """In a few statements, without reading a row. What became of an item outlives its job."""
    for rows in (JobStep, JobResource, CleanUp):
        _raw_delete(rows.objects.filter(job__in=keys))
    _raw_delete(JobItem.objects.filter(parent__in=keys))
    JobItem.objects.filter(job__in=keys).update(job=None)
    _raw_delete(Job.objects.filter(pk__in=keys))


def _raw_delete(rows: Any) -> None:
    delete: Callable[[str], int] = rows._raw_delete
    delete(rows.db)
