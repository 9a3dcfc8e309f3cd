"""What the doctor took out of the way: kept on its machine and here, put back or purged when its time is over."""

import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor, platform
from cloud.common.doctor import CHECKS, Finding
from cloud.common.errors import Missing, Problem
from cloud.common.models import Connection
from cloud.common.wire import Document
from cloud.config.services import value
from cloud.events.services import audit
from cloud.infra import quarantined
from cloud.infra.models import Agent, QuarantinedThing
from cloud.infra.workflows.doctor import FixOnMachine, PurgeOnMachine, RestoreOnMachine
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from cloud.jobs.workflow import Workflow

log = logging.getLogger(__name__)


@transaction.atomic
def set_aside(agent: str, findings: list[Finding], *, actor: Actor) -> Job:
    """Open the job that takes these things of one machine out of the way. Raises Conflict while another is at it."""
    actor.require("doctor.fix")
    # Domains before the disks that they use: keepers are named so that they sort like that.
    ordered = sorted(findings, key=lambda finding: CHECKS[finding.kind].keeper)
    items = [{"id": str(uuid.uuid4()), "finding": _document(finding)} for finding in ordered]
    return _open(FixOnMachine, Agent.objects.get(pk=agent), actor, {"items": items})


def restore(ids: Iterable[Any], *, actor: Actor) -> list[Job]:
    """Put things (keys) back from the quarantine: rows at once, what lies on machines by a job for each machine.

    Raises Missing when one of them is not in the quarantine.
    """
    actor.require("doctor.restore")
    return _act(_rows(ids), RestoreOnMachine, quarantined.put_rows_back, actor)


def purge(ids: Iterable[Any], *, actor: Actor) -> list[Job]:
    """Remove things (keys) from the quarantine for good, before their time."""
    actor.require("doctor.purge")
    return _act(_rows(ids), PurgeOnMachine, quarantined.forget, actor)


def purge_due() -> None:
    """Remove what has been in the quarantine for as long as the setting says; what is on machines that are away waits.

    A machine's job may be refused because another is at work there: the next hour tries again.
    """
    oldest = Now() - timedelta(days=value("doctor.quarantine_days"))
    due = QuarantinedThing.objects.filter(created_at__lt=oldest)
    try:
        _act(due.filter(agent=None) | due.filter(keeper=""), PurgeOnMachine, quarantined.forget, platform("quarantine"))
    except Problem as problem:
        log.warning("the quarantine's rows are not purged: %s", problem.detail)
    for agent in Agent.objects.filter(connection=Connection.CONNECTED, quarantined__in=due.exclude(keeper="")):
        try:
            _act(due.filter(agent=agent), PurgeOnMachine, quarantined.forget, platform("quarantine"))
        except Problem as problem:
            log.warning("the quarantine of %s is not purged: %s", agent.name, problem.detail)


def _rows(ids: Iterable[Any]) -> QuerySet[QuarantinedThing]:
    wanted = set(ids)
    rows = QuarantinedThing.objects.filter(pk__in=wanted)
    if rows.count() < len(wanted):
        raise Missing(_("This is not in the quarantine (any more)."))
    return rows


@transaction.atomic
def _act(things: QuerySet[QuarantinedThing], workflow: type[Workflow], at_once: Any, actor: Actor) -> list[Job]:
    by_machine: dict[Agent, list[str]] = defaultdict(list)
    for thing in things.select_related("agent").order_by("pk"):
        if thing.keeper and thing.agent is not None:
            by_machine[thing.agent].append(str(thing.pk))
        else:
            audit.record(workflow.name, actor=actor, detail={"thing": str(thing.pk), "name": thing.name})
            at_once(thing)
    machines = sorted(by_machine.items(), key=lambda each: each[0].pk)
    return [_open(workflow, agent, actor, {"things": keys}) for agent, keys in machines]


def _open(workflow: type[Workflow], agent: Agent, actor: Actor, context: Document) -> Job:
    return jobs.open(workflow, resource=agent, actor=actor, context={"agent": str(agent.pk), **context})


def _document(finding: Finding) -> Document:
    """The finding as JSON; its words are made anew for whoever reads them."""
    return {**asdict(finding), "detail": "", "since": None}
