"""Parent jobs: they hold nothing, keep a result per item, and end when the last item has.

A batch is accepted in one transaction, with all its items waiting. Then each item is begun in a transaction of its
own, in the order of their uuids: what is refused is kept with the reason and does not stop the others. Whoever begins
items holds the parent's lease; when that process dies, or its time is up, the sweep has a worker go on.
"""

import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import OperationalError, transaction
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from cloud.celery import app
from cloud.common import batches as door
from cloud.common.actor import Actor
from cloud.common.api import problems
from cloud.common.api.links import url_of
from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.jobs import failures, sealing, words
from cloud.jobs.leases import database_now
from cloud.jobs.models import ItemState, Job, JobItem, JobState

log = logging.getLogger(__name__)

BATCH = "batch"
LEASE = timedelta(seconds=30)
# How long a request begins items before it leaves the rest to a worker, in seconds.
PATIENCE_S = 15.0
_TRIES = 3


def begin(batch: door.Batch, *, actor: Actor, names: Sequence[str] = (), wish: Any = None) -> Job:
    """Accept a batch: its parent job, each item waiting. Begin the items with `go_on` once this is committed.

    For `create`, `names` are of what is to be made, each by the sealed `wish`.
    """
    context = {
        "verb": batch.permission,
        "count": len(batch.keys) or len(names),
        "prefix": batch.prefix,
        "act": batch.verb,
        "params": batch.params,
        "actor": _kept(actor),
    }
    if batch.secrets:
        context["secrets"] = sealing.seal(batch.secrets)
    if wish is not None:
        context["wish"] = wish
    model: Any = apps.get_model(batch.model)
    known = {row.pk: str(row)[:255] for row in model.objects.visible_to(actor).filter(pk__in=list(batch.keys))}
    with transaction.atomic():
        parent = Job.objects.create(
            workflow=BATCH,
            state=JobState.RUNNING,
            started_at=Now(),
            resource_type=batch.model,
            resource_name=str(context["count"]),
            project_id=actor.project,
            actor_uuid=actor.user,
            actor_name=actor.name,
            context=context,
        )
        items: list[tuple[UUID | None, str]] = [(key, known.get(key, "")) for key in batch.keys]
        items += [(None, name) for name in names]
        JobItem.objects.bulk_create(
            JobItem(parent=parent, position=position, resource_type=batch.model, resource_uuid=key, resource_name=name)
            for position, (key, name) in enumerate(items)
        )
    return parent


def go_on(parent: UUID, *, patience_s: float = PATIENCE_S) -> None:
    """Begin the items that wait, unless another process does. Never raises for an item: that is the item's result."""
    owner = secrets.token_hex(8)
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    ours = Job.objects.live().filter(pk=parent, workflow=BATCH)
    if not ours.filter(free).update(lease_until=Now() + LEASE, lease_owner=owner):
        return
    until = time.monotonic() + patience_s
    try:
        for item in _waiting(parent):
            if time.monotonic() > until:
                transaction.on_commit(lambda: _kick(parent), robust=True)
                break
            if not ours.filter(lease_owner=owner).update(lease_until=Now() + LEASE):
                return
            _begin_item(item)
    except OperationalError:
        log.exception("batch %s: a worker goes on with it", parent)
    finally:
        Job.objects.filter(pk=parent, lease_owner=owner).update(lease_until=None, lease_owner="")
    settle(parent)


def _waiting(parent: UUID) -> list[int]:
    waiting = JobItem.objects.filter(parent=parent, state=ItemState.WAITING, job=None)
    return list(waiting.order_by(F("resource_uuid").asc(nulls_last=True), "position").values_list("pk", flat=True))


def _begin_item(key: int) -> None:
    for attempt in range(_TRIES):
        try:
            with transaction.atomic():
                item = JobItem.objects.select_for_update(of=("self",)).select_related("parent").get(pk=key)
                if item.state == ItemState.WAITING and item.job_id is None:
                    _perform(item)
                    item.save()
            return
        except OperationalError:  # a deadlock that the database broke: nothing of it happened
            log.warning("batch item %s: the database failed", key, exc_info=True)
            if attempt == _TRIES - 1:
                raise


def _perform(item: JobItem) -> None:
    context = item.parent.context
    params = {**context["params"], **((sealing.unseal(context["secrets"]) or {}) if "secrets" in context else {})}
    if context["act"] == "create":
        params = {**(sealing.unseal(context["wish"]) or {}), "name": item.resource_name}
        params |= {"count": 1} if "count" in params else {}
    try:
        with transaction.atomic():
            done = door.perform(context["prefix"], context["act"], item.resource_uuid, params, _actor(context["actor"]))
    except OperationalError:
        raise
    except Exception as error:
        problem = problems.translate(error)
        if problem is None:
            log.exception("batch item %s", item.pk)
        item.state, item.error = ItemState.REFUSED, failures.document(problem or error)
        return
    item.resource_uuid, item.resource_name = done.key, done.name[:255]
    item.state, item.job = ItemState.SUCCEEDED, done.job
    if done.job is not None:
        Job.objects.filter(pk=done.job.pk).update(parent=item.parent)


def settle(parent: UUID) -> None:
    """Bring a parent up to date with its items."""
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=parent, finished_at=None, workflow="batch").first()
        if job is None:
            return
        if job.is_cancelled:
            _cancel_waiting(job)
        told = counts(job)
        total = sum(told.values())
        ended = total - told["waiting"] - told["running"]
        job.percent = round(100 * ended / (total or 1), 1)
        if ended == total:
            failed = total - told["succeeded"]
            job.state = JobState.FAILED if failed else JobState.SUCCEEDED
            job.finished_at = database_now()
            job.context.pop("secrets", None)
            if failed and job.is_cancelled:
                job.state, job.error = JobState.CANCELLED, failures.cancelled()
            elif failed:
                job.error = failures.document(
                    Problem(
                        filled(_("%(failed)d of %(total)d failed."), failed=failed, total=total),
                        code="some_failed",
                        advice=_("Each item says why."),
                    )
                )
            of_job = Job.objects.filter(pk=OuterRef("job"))
            job.items.filter(job__isnull=False).update(
                state=Subquery(of_job.values("state")), error=Subquery(of_job.values("error"))
            )
        job.save(update_fields=["percent", "state", "finished_at", "context", "error"])


def look_after(parent: UUID) -> None:
    """What the sweep does with a live parent: has its waiting items begun where nobody does, and settles it."""
    settle(parent)
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    abandoned = Job.objects.live().filter(free, pk=parent, items__state=ItemState.WAITING, items__job=None)
    if abandoned.exists():
        _kick(parent)


def _kick(parent: UUID) -> None:
    app.send_task("jobs.go_on", kwargs={"parent": str(parent)}, queue="control", ignore_result=True)


def counts(job: Job) -> dict[str, int]:
    """How many of a parent's items are in which case."""
    states = job.items.annotate(at_end=Coalesce("job__state", "state")).order_by()
    rows = states.values_list("at_end").annotate(number=Count("pk"))
    told = dict.fromkeys(("waiting", "running", "succeeded", "failed", "refused", "cancelled", "stuck"), 0)
    for state, number in rows:
        told[state if state in told else "running"] += number
    return told


def _cancel_waiting(job: Job) -> None:
    waiting = job.items.filter(state=ItemState.WAITING, job=None)
    waiting.update(state=ItemState.CANCELLED, error=failures.cancelled())


def cancel_waiting(job: Job) -> None:
    """Items that have not begun do not begin; call it with the parent's row locked."""
    _cancel_waiting(job)


def results(parent: UUID) -> list[dict[str, Any]]:
    """What became of each item so far, in the order in which they were named."""
    return shown(JobItem.objects.filter(parent=parent).select_related("job"))


def shown(items: Iterable[JobItem]) -> list[dict[str, Any]]:
    """Items as the API shows them; select their `job`."""
    return [
        {
            "uuid": str(item.resource_uuid) if item.resource_uuid else None,
            "name": item.resource_name,
            "url": _url(item),
            "state": item.job.state if item.job else item.state,
            "error": words.error(item.job.error if item.job else item.error),
            "job": url_of(item.job) if item.job else None,
        }
        for item in items
    ]


def _url(item: JobItem) -> str:
    if item.resource_uuid is None or not item.resource_type:
        return ""
    return url_of(apps.get_model(item.resource_type)(pk=item.resource_uuid))


def keep_wish(job: Job, wish: door.Wish) -> None:
    """Keep with a parent job what was asked for, so that what fails of it can be tried again."""
    if job.workflow == BATCH:
        job.context |= {"prefix": wish.prefix, "act": "create", "params": {}, "wish": sealing.seal(wish.body)}
        Job.objects.filter(pk=job.pk).update(context=job.context)


def _kept(actor: Actor) -> dict[str, Any]:
    return {
        "name": actor.name,
        "user": str(actor.user) if actor.user else None,
        "account": str(actor.account) if actor.account else None,
        "project": str(actor.project) if actor.project else None,
        "projects": sorted(str(key) for key in actor.projects),
        "grants": sorted(actor.grants),
        "sees_all": actor.sees_all,
        "address": actor.address,
        "request_id": actor.request_id,
        "via": actor.via,
    }


def _actor(kept: dict[str, Any]) -> Actor:
    """Who asked, with the rights they had when the batch was accepted."""

    def key(name: str) -> UUID | None:
        return UUID(kept[name]) if kept[name] else None

    return Actor(
        name=kept["name"],
        user=key("user"),
        account=key("account"),
        project=key("project"),
        projects=frozenset(UUID(text) for text in kept["projects"]),
        grants=frozenset(kept["grants"]),
        sees_all=kept["sees_all"],
        address=kept["address"],
        request_id=kept["request_id"],
        via=kept["via"],
    )
