"""What one may do with hosts."""

from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.common.models import Availability
from cloud.infra import usage
from cloud.infra.models import AgentKind, Cluster, Host, HostState, Hypervisor
from cloud.infra.services import capacity, changes, enrolment
from cloud.infra.workflows.delete_host import DeleteHost
from cloud.infra.workflows.enrol_host import AddHost, ReconnectHost
from cloud.jobs import services as jobs
from cloud.jobs.models import Job

DRIVERS = {Hypervisor.KVM: "libvirt", Hypervisor.FAKE: "fake"}


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


@transaction.atomic
def update(host: Host, *, actor: Actor, **changed: Any) -> Host:
    """Change name or description."""
    return changes.update(host, "host.update", actor=actor, changed=changed)


@transaction.atomic
def enable(host: Host, *, actor: Actor) -> None:
    """Let new work land on the host again."""
    changes.set_availability(host, Availability.ENABLED, "host.enable", actor=actor)


@transaction.atomic
def disable(host: Host, *, actor: Actor) -> None:
    """Let no new work land on the host; what runs goes on."""
    changes.set_availability(host, Availability.DISABLED, "host.disable", actor=actor)


@transaction.atomic
def reconnect(host: Host, *, actor: Actor, **ssh: Any) -> Job:
    """Install the agent on the host's machine again, with a new certificate and new access.

    `ssh` as for `enrolment.again`: credentials, and `host_key_fingerprint` where the host key changed and the caller
    confirms it. What runs on the host goes on. When the job fails, the agent that was there works on.
    """
    actor.require("host.reconnect", host)
    host.expect_state(HostState.READY)
    context = enrolment.again(_agent(host), hypervisor=_driver(host.cluster), **ssh)
    return jobs.open(ReconnectHost, resource=host, actor=actor, context=context)


@transaction.atomic
def delete(host: Host, *, actor: Actor) -> Job:
    """Take a host out of the cloud: its agent is stopped when it can be reached, its access is revoked.

    Raises Conflict `in_use` while anything is placed on it.
    """
    actor.require("host.delete", host)
    host.expect_state(HostState.READY)
    # From here on nothing can be placed there; what was placed before is seen by the question that follows.
    promised_bytes = capacity.close(host)
    usage.expect_none(host)
    if promised_bytes:
        raise Conflict(
            _("Memory of %(name)s is still promised to an instance.") % {"name": host},
            code="in_use",
            advice=_("Wait for the jobs on it to end, then try again."),
        )
    return jobs.open(
        DeleteHost, resource=host, actor=actor, context={"host": str(host.pk), "agent": str(_agent(host).pk)}
    )


def _agent(host: Host) -> Any:
    if host.agent is None:
        raise Conflict(_("%(name)s has no agent.") % {"name": host}, code="no_agent")
    return host.agent


def _driver(cluster: Cluster) -> str:
    return DRIVERS[Hypervisor(cluster.hypervisor)]
