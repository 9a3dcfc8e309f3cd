"""What makes good anything lost: run every two seconds by one process."""

import logging
import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.common.errors import Problem
from cloud.common.wire import Command
from cloud.jobs import agents, batches
from cloud.jobs.engine import Turn
from cloud.jobs.kick import kick
from cloud.jobs.models import Job, JobState
from cloud.jobs.services import BATCH
from cloud.jobs.workflow import AgentStep

log = logging.getLogger(__name__)

KEEP_DAYS = 90
BATCH_SIZE = 500


def run() -> None:
    """Go on with what nobody works on, send again what was lost, settle parents."""
    free = Job.objects.live().filter(Q(lease_until=None) | Q(lease_until__lt=Now())).exclude(workflow=BATCH)
    late = set(free.filter(step_deadline_at__lt=Now()).values_list("uuid", flat=True))
    for job in free.order_by("sequence").iterator(chunk_size=BATCH_SIZE):
        try:
            _look_after(job, is_late=job.uuid in late)
        except Exception:
            log.exception("job %s: the sweep passes it over", job.uuid)  # and goes on with the others
    for parent in Job.objects.live().filter(workflow=BATCH).values_list("uuid", flat=True):
        batches.settle(parent)


def _look_after(job: Job, *, is_late: bool) -> None:
    turn = Turn(job)
    waits = [held for held in job.waiting.values() if "agent" in held and "answer" not in held]
    if not waits or (is_late and job.state != JobState.UNDOING):
        kick(job.uuid, turn.step.queue if turn.step else "control")
    elif time.time() - waits[0]["sent_at"] >= settings.MICA["resend_after_s"]:
        if agents.is_alive(waits[0]["agent"]):
            _send_again(job)
        elif job.state != JobState.UNDOING:
            kick(job.uuid)  # the turn says when it has waited long enough for a silent machine


@transaction.atomic
def _send_again(job: Job) -> None:
    """A key that is neither answered nor in the agent's heartbeat is sent again, the same attempt.

    The journal of the agent answers what it has done already. A silent agent is left alone until it is back.
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
    """Delete finished jobs after 90 days, in batches."""
    while True:
        old = Job.objects.filter(finished_at__lt=Now() - timedelta(days=KEEP_DAYS)).values_list("pk", flat=True)
        if not Job.objects.filter(pk__in=list(old[:BATCH_SIZE])).delete()[0]:
            return
