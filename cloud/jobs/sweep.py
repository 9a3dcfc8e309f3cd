"""What makes good anything lost: run every two seconds by one process."""

import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.jobs import agents, batches
from cloud.jobs.engine import Turn
from cloud.jobs.kick import kick
from cloud.jobs.models import Job, JobState
from cloud.jobs.services import BATCH
from cloud.jobs.workflow import AgentStep

KEEP_DAYS = 90
BATCH_SIZE = 500


def run() -> None:
    """Go on with what nobody works on, send again what was lost, settle parents."""
    free = Job.objects.live().filter(Q(lease_until=None) | Q(lease_until__lt=Now())).exclude(workflow=BATCH)
    late = set(free.filter(step_deadline_at__lt=Now()).values_list("uuid", flat=True))
    for job in free.order_by("sequence").iterator(chunk_size=BATCH_SIZE):
        turn = Turn(job)
        waits = [held for held in job.waiting.values() if "agent" in held and "answer" not in held]
        if waits and (job.state == JobState.UNDOING or job.uuid not in late):
            if time.time() - waits[0]["sent_at"] >= settings.MICA["resend_after_s"]:
                _send_again(job)
        else:
            kick(job.uuid, turn.step.queue if turn.step else "control")
    for parent in Job.objects.live().filter(workflow=BATCH).values_list("uuid", flat=True):
        batches.settle(parent)


@transaction.atomic
def _send_again(job: Job) -> None:
    """A key that is neither answered nor in the agent's heartbeat is sent again, the same attempt.

    The journal of the agent answers what it has done already. A silent agent is left alone until it is back.
    """
    locked = Job.objects.live().select_for_update(skip_locked=True).filter(pk=job.pk, lease_until=None).first()
    if locked is None:
        return
    turn = Turn(locked)
    made = turn.resend(turn.step) if isinstance(turn.step, AgentStep) else None
    if made is None or "answer" in locked.waiting.get(made[1].key, {"answer": None}):
        return
    agent, command = made
    alive = agents.heartbeat(agent)
    if alive is None or command.key in alive.get("in_work", []):
        return
    locked.waiting[command.key]["sent_at"] = time.time()
    locked.save(update_fields=["waiting"])
    is_bulk = turn.step.is_bulk if isinstance(turn.step, AgentStep) else False
    transaction.on_commit(lambda: agents.send_command(agent, command, is_bulk=is_bulk), robust=True)


def forget_old() -> None:
    """Delete finished jobs after 90 days, in batches."""
    while True:
        old = Job.objects.filter(finished_at__lt=Now() - timedelta(days=KEEP_DAYS)).values_list("pk", flat=True)
        if not Job.objects.filter(pk__in=list(old[:BATCH_SIZE])).delete()[0]:
            return
