"""Settling the state of an instance that no job is at work on: its host is asked what is there."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from cloud.common.actor import Actor
from cloud.common.acts import Act, acting
from cloud.common.errors import Conflict, Problem, Unavailable
from cloud.infra.models import Host
from cloud.jobs import agents, settling
from cloud.jobs.leases import database_now
from compute.messages import DomainInventory, Domains
from compute.models import Instance, InstanceState
from compute.models.instances import ON_HOST
from compute.services import instances, reality
from compute.workflows import bookings

SILENT = gettext_noop("Its host does not answer: what is there is not known.")


def settle_state(instance: Instance, *, actor: Actor) -> None:
    """Settle an instance that no job is at work on by what its host says now.

    What runs is running, what does not is off and gives its CPU and memory back. Where the host does not answer, the
    state is unknown and nothing is given back. Raises Conflict (`busy`) while a job is at work.
    """
    DECLARED.expect(instance, actor)
    host = instance.host or instance.last_host
    asked_at = database_now()
    # Asked outside of the transaction: nothing is held while a machine is waited for.
    report = _ask(host) if host is not None and instance.state != InstanceState.DESTROYED else None
    _settle(instance, actor=actor, host=host, report=report, asked_at=asked_at)


def _ask(host: Host) -> DomainInventory | None:
    if host.agent_id is None:
        return None
    try:
        return DomainInventory.from_document(agents.ask(host.agent_id, Domains()))
    except Unavailable:
        return None


@acting("state.settle", checks=[settling.NO_LIVE_JOB], lock=instances.locked)
def _settle(
    instance: Instance, *, actor: Actor, host: Host | None, report: DomainInventory | None, asked_at: Any
) -> None:
    before = {"state": instance.state, "activity": instance.activity, "is_reserved": instance.is_reserved}
    settling.free(instance)
    if instance.state == InstanceState.DESTROYED or host is None:
        pass
    elif report is None:
        Instance.objects.filter(pk=instance.pk).update(state=InstanceState.UNKNOWN, state_reason=SILENT)
    else:
        there = {domain.uuid for domain in report.domains if domain.is_ours}
        if host.agent is not None:
            reality.inventory(host.agent, report, asked_at=asked_at, only=instance.pk)
        if str(instance.pk) not in there:
            _is_off(instance)
    settling.record(instance, actor=actor, before=before)


def _is_off(instance: Instance) -> None:
    """Nothing of it runs: its room is given back; its disks and addresses stay its own."""
    bookings.leave_host(instance.pk)
    Instance.objects.filter(pk=instance.pk).update(
        state=InstanceState.STOPPED, state_reason="", settled_at=database_now()
    )


DECLARED: Act = _settle.act  # type: ignore[attr-defined]
settle_state.act = DECLARED  # type: ignore[attr-defined]


@settling.register_use
def in_use(row: Any) -> Problem | str:
    """Whether what a job kept back for an instance may be in use."""
    if not isinstance(row, Instance) or row.state not in ON_HOST:
        return ""
    if row.state == InstanceState.UNKNOWN:
        return Conflict(
            _("Nobody knows whether %(name)s runs.") % {"name": row},
            code="unknown_state",
            advice=_("Settle the state of the instance first: its host is asked what is there."),
        )
    return _("%(name)s runs on %(host)s.") % {"name": row, "host": row.host}
