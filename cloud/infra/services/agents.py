"""What one may do with agents: upgrade one or all, shut one out."""

from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.infra import releases
from cloud.infra.models import Agent
from cloud.infra.workflows import upgrade_agent
from cloud.infra.workflows.revoke_agent import RevokeAgent
from cloud.infra.workflows.upgrade_agent import UpgradeAgents
from cloud.jobs import services as jobs
from cloud.jobs.models import Job


def _against_upgrade(resource: Any, actor: Actor) -> Problem | None:
    agent = resource if isinstance(resource, Agent) else resource.agent
    if agent is None:
        return Conflict(_("%(name)s has no agent.") % {"name": resource}, code="no_agent")
    return upgrade_agent.against(agent)


@acting("agent.upgrade", is_exclusive=True, checks=[each(_against_upgrade)])
def upgrade(agent: Agent, *, actor: Actor) -> Job:
    """Bring the agent to the current release, in place; nothing that runs on the machine is touched.

    Raises Conflict `not_connected`, `already_current`, `busy`.
    """
    return upgrade_agent.begin(agent, actor=actor)


@acting("agent.upgrade", is_exclusive=True, checks=[each(_against_upgrade)])
def upgrade_of(resource: Any, *, actor: Actor) -> Job:
    """Bring the agent of this machine to the current release, in place; nothing that runs on it is touched.

    `resource` has an `agent`. Raises Conflict `no_agent`, `not_connected`, `already_current`, `busy`.
    """
    return upgrade_agent.begin(resource.agent, actor=actor, resource=resource)


@transaction.atomic
def upgrade_all(*, actor: Actor) -> Job:
    """Bring all connected agents to the current release, a few at a time; stops at the first that does not come back.

    Raises Conflict `already_current` when there is none to upgrade, `busy` while this is being done already.
    """
    actor.require("agent.upgrade")
    behind = [agent for agent in Agent.objects.connected() if releases.is_outdated(agent.version)]
    if not behind:
        raise Conflict(_("Every connected agent has the current release."), code="already_current")
    context = {"agents": sorted(str(agent.pk) for agent in behind), "version": releases.version()}
    return jobs.open(UpgradeAgents, resource=bootstrap.admin_project(), actor=actor, context=context)


@acting("agent.revoke", is_exclusive=True)
def revoke(agent: Agent, *, actor: Actor) -> Job:
    """Shut the machine out: of Redis, the metric store, and every other machine's stream door.

    What runs on it runs on. Reconnecting it lets it in again.
    """
    return jobs.open(RevokeAgent, resource=agent, actor=actor, context={"agent": str(agent.pk)})
