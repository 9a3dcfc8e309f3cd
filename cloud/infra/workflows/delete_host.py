"""Taking a host out of the cloud: its agent goes to rest and is shut out."""

from typing import ClassVar
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.agent.version import understands
from cloud.common.models import Connection
from cloud.common.wire import Message
from cloud.infra import enrolment
from cloud.infra.messages import Retire
from cloud.infra.models import Agent, Host, HostCapacity
from cloud.jobs import cleaning
from cloud.jobs.workflow import AgentStep, Context, Step, Workflow, minutes


class RetireAgent(AgentStep):
    """The agent stops itself and forgets its access. A machine that is away or too old is only shut out."""

    label = _("Stopping the agent")
    deadline = minutes(2)
    ends_its_agent = True

    def applies(self, ctx: Context) -> bool:
        agent = Agent.objects.filter(pk=ctx["agent"], connection=Connection.CONNECTED).first()
        return agent is not None and understands(agent.protocol)

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


class ForgetCleanUps(Step):
    """The machine cannot come back: what it owed to ended jobs counts as done, and what they reserved is given back."""

    label = _("Giving back what the machine still held")
    is_cancellable = False

    def run(self, ctx: Context) -> None:
        cleaning.drop(ctx["agent"])


class DeleteHost(Workflow):
    name = "host.delete"
    verb = _("Delete host")
    activity = "deleting"
    steps: ClassVar[list[type[Step]]] = [RetireAgent, RevokeAccess, ForgetCleanUps]

    def succeeded(self, ctx: Context) -> None:
        Host.objects.filter(pk=ctx["host"]).delete()
        Agent.objects.filter(pk=ctx["agent"]).delete()

    def failed(self, ctx: Context) -> None:
        """The host takes work again, with the capacity it reported."""
        for host in Host.objects.filter(pk=ctx["host"]):
            totals = {"cpu_total": host.cpu_threads, "memory_total_bytes": host.memory_bytes}
            HostCapacity.objects.filter(host=host).update(**totals)
