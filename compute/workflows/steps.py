"""Steps of an instance's workflows that are compute's own. Storage's are in `storage.workflows.steps`.

The context holds `agent` (uuid of the host's agent), `host`, `volumes` and `nics` (uuids), `wants` (desired numbers).
"""

from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.wire import Document, Message
from cloud.jobs.workflow import AgentStep, Context, DesiredStep, Step, minutes
from compute.messages import RebootDomain, RemoveDomain, StartDomain, StopDomain
from compute.workflows import bookings, domains
from network.models import Nic
from network.services import nics


class HostReservation(Step):
    """Booked by the service when the job was opened; given back by undo."""

    label = _("Reserving CPU and memory")
    releases = True
    weight = 0.1

    def undo(self, ctx: Context) -> None:
        bookings.leave_host(ctx.resource_uuid)


class Belongings(Step):
    """The volumes and NICs of a new instance: rows made by the service with the job, released by undo."""

    label = _("Reserving addresses and disk space")
    releases = True
    weight = 0.1

    def undo(self, ctx: Context) -> None:
        bookings.release_belongings(ctx.resource_uuid)


class PrepareNetwork(DesiredStep):
    """Waits until the host has the bridges and the DHCP entries of the instance's NICs."""

    label = _("Preparing the network")

    def applies(self, ctx: Context) -> bool:
        return bool(ctx.get("wants"))

    def wants(self, ctx: Context) -> list[tuple[str, str, int]]:
        return [(str(agent), str(section), int(number)) for agent, section, number in ctx["wants"]]

    def is_met(self, ctx: Context) -> bool:
        return super().is_met(ctx) and nics.are_served(Nic.objects.filter(instance_uuid=ctx.resource_uuid))

    def undo(self, ctx: Context) -> None:
        nics.unplace(list(Nic.objects.filter(instance_uuid=ctx.resource_uuid)))


class InstanceAgentStep(AgentStep):
    def agent(self, ctx: Context) -> UUID | str | None:
        agent: str | None = ctx.get("agent")
        return agent


class StartOnHost(InstanceAgentStep):
    label = _("Starting the virtual machine")
    deadline = minutes(3)
    weight = 2.0

    def ask(self, ctx: Context) -> Message | None:
        return StartDomain(spec=domains.spec(ctx.resource))

    def undo_ask(self, ctx: Context) -> Message | None:
        return RemoveDomain(uuid=str(ctx.resource_uuid))


class StartAgain(StartOnHost):
    """For an instance that was there before: undone, it is off, and its host keeps what it has of it."""

    def undo_ask(self, ctx: Context) -> Message | None:
        return StopDomain(uuid=str(ctx.resource_uuid), is_forced=True)


class StopOnHost(InstanceAgentStep):
    label = _("Stopping the virtual machine")
    deadline = minutes(65)
    is_cancellable = False

    def ask(self, ctx: Context) -> Message | None:
        return StopDomain(
            uuid=str(ctx.resource_uuid), is_forced=ctx.get("is_forced", False), grace_s=ctx.get("grace_s", 60)
        )


class RebootOnHost(InstanceAgentStep):
    label = _("Restarting the virtual machine")
    deadline = minutes(65)
    is_cancellable = False

    def ask(self, ctx: Context) -> Message | None:
        return RebootDomain(
            uuid=str(ctx.resource_uuid), is_forced=ctx.get("is_forced", False), grace_s=ctx.get("grace_s", 60)
        )


class RemoveFromHost(InstanceAgentStep):
    label = _("Removing the virtual machine from its host")
    deadline = minutes(2)
    is_cancellable = False

    def ask(self, ctx: Context) -> Message | None:
        return RemoveDomain(uuid=str(ctx.resource_uuid))

    def answered(self, ctx: Context, body: Document) -> None:
        bookings.leave_host(ctx.resource_uuid)
