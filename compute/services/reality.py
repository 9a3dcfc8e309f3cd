"""Reality wins: what hosts say of their domains settles what the rows say.

An instance that a job is at work on is left to the job. Unknown domains are never touched.
"""

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_noop

from cloud.accounts.services import quotas
from cloud.common.actor import platform
from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.config.services import value
from cloud.events.services import audit
from cloud.infra.models import Agent, Host
from cloud.infra.services import capacity
from cloud.jobs import agents
from cloud.jobs.leases import database_now
from compute.messages import DomainEvent, DomainInventory, Domains
from compute.models import Instance, InstanceState
from compute.models.instances import ON_HOST
from compute.services import instances, unknown
from compute.workflows.bookings import leave_host
from network.models import Nic
from network.services import nics

log = logging.getLogger(__name__)

SETTLED = {
    "running": InstanceState.RUNNING,
    "suspended": InstanceState.PAUSED,
    "paused": InstanceState.PAUSED,
    "crashed": InstanceState.CRASHED,
    "stopped": InstanceState.STOPPED,
}
FRESH = timedelta(seconds=10)
GUESTS_OWN_WILL = ("shutdown", "destroyed", "crashed")


def _of_host(agent: Agent) -> Any:
    return Instance.objects.filter(Q(host__agent=agent) | Q(host=None, last_host__agent=agent)).exclude(
        state=InstanceState.DESTROYED
    )


def domain_event(agent: Agent, event: DomainEvent) -> None:
    """A domain changed its state behind our back or on our behalf; the latter is the job's to settle."""
    unknown.note_event(agent, event)
    if event.is_ours and event.state in SETTLED:
        _settle(agent, event.uuid, SETTLED[event.state], because=event.reason)


def inventory(
    agent: Agent, report: DomainInventory, *, asked_at: datetime | None = None, only: UUID | None = None
) -> None:
    """Everything the host's hypervisor knows: whoever should run there and does not, is stopped.

    Without `asked_at` the report came by itself and may have been on its way while a job settled a state: what was
    settled a moment ago is left to the next report. One that was asked for knows all that was settled before.
    """
    unknown.note_all(agent, report)
    known = asked_at or Now() - FRESH
    states = {domain.uuid: domain.state for domain in report.domains if domain.is_ours}
    settled = _of_host(agent).filter(activity="", settled_at__lt=known)
    for instance in settled.filter(pk=only) if only else settled:
        seen = SETTLED.get(states.get(str(instance.pk), "stopped"))
        if seen and seen != instance.state and not (seen == InstanceState.STOPPED and instance.state not in ON_HOST):
            _settle(agent, str(instance.pk), seen, because="inventory")


@transaction.atomic
def _settle(agent: Agent, uuid: str, state: InstanceState, *, because: str) -> None:
    instance = _of_host(agent).select_for_update(of=("self",)).filter(pk=uuid, activity="").first()
    if instance is None or instance.state == state:
        return
    before = instance.state
    changes: dict[str, Any] = {"state": state, "state_reason": "", "settled_at": Now()}
    if state == InstanceState.STOPPED:
        if because in GUESTS_OWN_WILL:
            changes["is_wanted_running"] = False
        leave_host(instance.pk)
    else:
        changes |= {"is_wanted_running": True, "boot_id": agent.boot_id}
        _take_room(instance, Host.objects.get(agent=agent))
    Instance.objects.filter(pk=instance.pk).update(**changes)
    audit.record(
        "instance.observed",
        actor=platform(agent.name),
        resource=instance,
        detail={"from": before, "to": state, "because": because},
    )


def _take_room(instance: Instance, host: Host) -> None:
    """A domain that runs takes its room, booked or not; a host that is full by this is not chosen again."""
    if instance.is_reserved:
        return
    is_reserved = capacity.take(host, cpu=instance.cpu, memory_bytes=instance.memory_bytes)
    Instance.objects.filter(pk=instance.pk).update(host=host, is_reserved=is_reserved)
    nics.place(list(Nic.objects.filter(instance_uuid=instance.pk)), host)
    if is_reserved:
        quotas.take(instance.project_id, instance.booked, is_forced=True)


def host_silent(agent: Agent) -> None:
    """Nobody knows what runs on a host that does not answer."""
    Instance.objects.filter(host__agent=agent, state__in=(InstanceState.RUNNING, InstanceState.PAUSED)).update(
        state=InstanceState.UNKNOWN, state_reason=gettext_noop("Its host does not answer.")
    )


def look(agent: Agent) -> None:
    """Ask the host what runs there, and settle it. Raises Unavailable when it does not answer."""
    asked_at = database_now()
    inventory(agent, DomainInventory.from_document(agents.ask(agent.pk, Domains())), asked_at=asked_at)


def host_back(agent: Agent) -> None:
    """Learn what runs there; after a restart of the machine, bring back what ran. Raises Unavailable: try again."""
    look(agent)
    bring_back(agent)


def bring_back(agent: Agent) -> None:
    """Start what should run on this host and was last seen running before the machine was restarted.

    One start a boot: what fails is the user's to look at. What no host has room for is tried again by the reconciler.
    """
    host = Host.objects.filter(agent=agent).select_related("cluster").first()
    if host is None or not value("instance.resume_after_host_restart", host.cluster):
        return
    for instance in _lost_to_a_restart().filter(last_host=host):
        try:
            with transaction.atomic():
                instances.start(instance, actor=platform(gettext_noop("restart of the host")))
                Instance.objects.filter(pk=instance.pk).update(boot_id=agent.boot_id)
        except Problem as problem:
            log.warning("%s is not brought back: %s", instance.name, problem.detail)
            Instance.objects.filter(pk=instance.pk).update(state_reason=str(problem.detail))


def bring_back_all() -> None:
    """What an earlier `bring_back` could not do, or never came to because its process died."""
    waiting = _lost_to_a_restart().filter(last_host__connection=Connection.CONNECTED)
    for agent in Agent.objects.filter(host__in=waiting.values("last_host")):
        bring_back(agent)


def _lost_to_a_restart() -> Any:
    stopped = Instance.objects.filter(state=InstanceState.STOPPED, activity="", is_wanted_running=True, host=None)
    return stopped.exclude(boot_id="").exclude(boot_id=F("last_host__agent__boot_id"))
