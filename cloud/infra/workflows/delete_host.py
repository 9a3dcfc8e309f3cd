"""Taking a host out of the cloud: its agent goes to rest and is shut out."""

from typing import ClassVar
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.models import Connection
from cloud.common.wire import Message
from cloud.infra import enrolment
from cloud.infra.messages import Retire
from cloud.infra.models import Agent, Host, HostCapacity
from cloud.jobs.workflow import AgentStep, Context, Step, Workflow, seconds


class RetireAgent(AgentStep):
    """The agent stops itself and forgets its access. A machine that is away is only shut out."""

    label = _("Stopping the agent")
    deadline = seconds(30)

    def applies(self, ctx: Context) -> bool:
        return Agent.objects.filter(pk=ctx["agent"], connection=Connection.CONNECTED).exists()

    def agent(self, ctx: Context) -> UUID | str | None:
        agent: str = ctx["agent"]
        return agent

    def ask(self, ctx: Context) -> Message | None:
        return Retire()


class RevokeAccess(Step):
    label = _("Taking the machine's access away")
    is_slow = True
    is_cancellable = False

    def run(self, ctx: Context) -> None:
        for agent in Agent.objects.filter(pk=ctx["agent"]):
            enrolment.revoke(agent)


class DeleteHost(Workflow):
    name = "host.delete"
    verb = _("Delete host")
    activity = "deleting"
    steps: ClassVar[list[type[Step]]] = [RetireAgent, RevokeAccess]

    def succeeded(self, ctx: Context) -> None:
        Host.objects.filter(pk=ctx["host"]).delete()
        Agent.objects.filter(pk=ctx["agent"]).delete()

    def failed(self, ctx: Context) -> None:
        """The host takes work again, with the capacity it reported."""
        for host in Host.objects.filter(pk=ctx["host"]):
            totals = {"cpu_total": host.cpu_threads, "memory_total_bytes": host.memory_bytes}
            HostCapacity.objects.filter(host=host).update(**totals)
