"""Shutting a machine out that is no longer trusted, at once and whether it can be reached or not."""

from typing import ClassVar

from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Connection
from cloud.infra import signals
from cloud.infra.models import Agent, Host
from cloud.infra.workflows.delete_host import RevokeAccess
from cloud.jobs.workflow import Context, Step, Workflow

# What `connection_reason` holds of a machine that was shut out.
REVOKED = "agent_revoked"


class RevokeAgent(Workflow):
    """What runs on the machine runs on; it comes back by being reconnected, with a new password and certificate."""

    name = "agent.revoke"
    verb = _("Revoke agent's access")
    steps: ClassVar[list[type[Step]]] = [RevokeAccess]

    def succeeded(self, ctx: Context) -> None:
        """Nobody waits for its heartbeat to run out."""
        changes = {
            "connection": Connection.DISCONNECTED,
            "connection_reason": REVOKED,
            "connection_changed_at": Now(),
        }
        Agent.objects.filter(pk=ctx["agent"]).update(**changes)
        Host.objects.filter(agent=ctx["agent"]).update(**changes)
        for agent in Agent.objects.filter(pk=ctx["agent"]):
            signals.tell(signals.agent_disconnected, agent)
