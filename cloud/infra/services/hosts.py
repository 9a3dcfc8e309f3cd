"""What one may do with hosts."""

from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.common.models import Availability, Connection
from cloud.infra import usage
from cloud.infra.models import Agent, AgentKind, Cluster, Host, HostState, Hypervisor
from cloud.infra.services import capacity, changes, enrolment
from cloud.infra.workflows.delete_host import DeleteHost
from cloud.infra.workflows.enrol_host import AddHost, ReconnectHost
from cloud.jobs import services as jobs
from cloud.jobs import settling
from cloud.jobs.models import Job

DRIVERS = {Hypervisor.KVM: "libvirt", Hypervisor.FAKE: "fake"}


def _has_agent(host: Host, actor: Actor) -> Problem | None:
    return None if host.agent_id else Conflict(_("%(name)s has no agent.") % {"name": host}, code="no_agent")


@transaction.atomic
def add(
    *, actor: Actor, cluster: Cluster, address: str, name: str = "", description: str = "", **ssh: Any
) -> tuple[list[Host], Job]:
    """Add a machine as a host: the job signs in by SSH, installs the agent and waits for its first word.

    `ssh` are the further arguments of `enrolment.begin`: ssh_port, ssh_user, ssh_password or ssh_private_key,
    host_key_fingerprint. Raises Conflict `address_in_use`, Invalid. When the job fails, nothing of the host stays.
    """
    actor.require("host.add", cluster)
    agent, context = enrolment.begin(
        kind=AgentKind.HOST, name=name or address, address=address, hypervisor=_driver(cluster), **ssh
    )
    host = Host.objects.create(
        uuid=agent.pk,  # one name for the machine everywhere: its agent labels samples with its own
        name=agent.name,
        description=description,
        cluster=cluster,
        agent=agent,
        address=agent.address,
        state=HostState.NEW,
        project=agent.project,
    )
    return [host], jobs.open(AddHost, resource=host, actor=actor, context=context)


@acting("host.update")
def update(host: Host, *, actor: Actor, **changed: Any) -> Host:
    """Change name or description."""
    return changes.update(host, "host.update", actor=actor, changed=changed)


@acting("host.enable")
def enable(host: Host, *, actor: Actor) -> None:
    """Let new work land on the host again."""
    changes.set_availability(host, Availability.ENABLED, "host.enable", actor=actor)


@acting("host.disable")
def disable(host: Host, *, actor: Actor) -> None:
    """Let no new work land on the host; what runs goes on."""
    changes.set_availability(host, Availability.DISABLED, "host.disable", actor=actor)


@acting("host.reconnect", states=[HostState.READY], checks=[each(_has_agent)])
def reconnect(host: Host, *, actor: Actor, **ssh: Any) -> Job:
    """Install the agent on the host's machine again, with a new certificate and new access.

    `ssh` as for `enrolment.again`: credentials, and `host_key_fingerprint` where the host key changed and the caller
    confirms it. What runs on the host goes on. When the job fails, the agent that was there works on.
    """
    context = enrolment.again(_agent(host), hypervisor=_driver(host.cluster), **ssh)
    return jobs.open(ReconnectHost, resource=host, actor=actor, context=context)


@acting("host.delete", states=[HostState.READY], checks=[each(_has_agent), usage.nothing_blocks])
def delete(host: Host, *, actor: Actor) -> Job:
    """Take a host out of the cloud: its agent is stopped when it can be reached, its access is revoked.

    Raises Conflict `in_use` while anything is placed on it; what a machine that is away should clean up, and what is
    reserved for that, is given up with it.
    """
    # From here on nothing can be placed there; what was placed before is seen by the question that follows.
    capacity.close(host)
    is_away = host.connection != Connection.CONNECTED
    usage.expect_none_without(_agent(host).pk, partial(_expect_unused, host)) if is_away else _expect_unused(host)
    return jobs.open(
        DeleteHost, resource=host, actor=actor, context={"host": str(host.pk), "agent": str(_agent(host).pk)}
    )


def _expect_unused(host: Host) -> None:
    usage.expect_none(host)
    if capacity.close(host):
        raise Conflict(
            _("Memory of %(name)s is still promised to an instance.") % {"name": host},
            code="in_use",
            advice=_("Wait for the jobs on it to end, then try again."),
        )


@acting("state.settle", checks=[settling.NO_LIVE_JOB])
def settle_state(host: Host, *, actor: Actor) -> None:
    """Settle a host that no job is at work on: it is ready as soon as it has an agent; its connection says the rest."""
    before = {"state": host.state, "activity": host.activity}
    settling.free(host)
    if host.agent_id:
        Host.objects.filter(pk=host.pk).update(state=HostState.READY)
    settling.record(host, actor=actor, before=before)


def _agent(host: Host) -> Agent:
    assert host.agent is not None  # the acts' checks say so
    return host.agent


def _driver(cluster: Cluster) -> str:
    return DRIVERS[Hypervisor(cluster.hypervisor)]
