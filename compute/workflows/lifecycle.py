"""Create, start, stop and reboot an instance."""

from typing import ClassVar

from django.db.models import OuterRef, Subquery, Value
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from cloud.infra.models import Host
from cloud.jobs.workflow import Context, Step, Workflow
from compute.models import Instance, InstanceState
from compute.workflows import bookings
from compute.workflows.bookings import leave_host, look_again
from compute.workflows.steps import (
    Belongings,
    HostReservation,
    PrepareNetwork,
    RebootOnHost,
    StartAgain,
    StartOnHost,
    StopOnHost,
)
from storage.workflows.steps import CacheImages, CreateVolumes


def _settle(ctx: Context, state: str, **changes: object) -> None:
    Instance.objects.filter(pk=ctx.resource_uuid).update(state=state, state_reason="", settled_at=Now(), **changes)


def _settle_running(ctx: Context) -> None:
    """It runs, as its user wishes, in the present boot of its host; what happened to it meanwhile is looked at soon."""
    boot = Host.objects.filter(pk=OuterRef("host")).values("agent__boot_id")
    _settle(ctx, InstanceState.RUNNING, is_wanted_running=True, boot_id=Coalesce(Subquery(boot), Value("")))
    look_again(ctx.get("agent"))


def _doubt(ctx: Context) -> None:
    """What could not be taken back may run or lie there: the next inventory of the host settles the state."""
    reason = gettext_noop("Something of it may still be on its host; see its job.")
    Instance.objects.filter(pk=ctx.resource_uuid).update(state=InstanceState.UNKNOWN, state_reason=reason)


class CreateInstance(Workflow):
    """Makes the volumes, plugs the network, starts the domain. What fails is undone and its row is gone: the job,
    which keeps the reason, is what remains."""

    name = "instance.create"
    verb = _("Create instance")
    activity = "creating"
    steps: ClassVar[list[type[Step]]] = [
        Belongings,
        HostReservation,
        CacheImages,
        CreateVolumes,
        PrepareNetwork,
        StartOnHost,
    ]

    def succeeded(self, ctx: Context) -> None:
        _settle_running(ctx)

    def failed(self, ctx: Context) -> None:
        _doubt(ctx) if ctx.is_stuck else bookings.forget(ctx.resource_uuid)


class CreateStoppedInstance(Workflow):
    """As CreateInstance, without starting it (`strategy: create_only`): keeps its volumes, not its CPU and memory."""

    name = "instance.create_only"
    verb = _("Create instance without starting it")
    activity = "creating"
    steps: ClassVar[list[type[Step]]] = [Belongings, HostReservation, CacheImages, CreateVolumes]

    def succeeded(self, ctx: Context) -> None:
        leave_host(ctx.resource_uuid)
        _settle(ctx, InstanceState.STOPPED)

    failed = CreateInstance.failed


class StartInstance(Workflow):
    name = "instance.start"
    verb = _("Start instance")
    activity = "starting"
    steps: ClassVar[list[type[Step]]] = [HostReservation, PrepareNetwork, StartAgain]

    def succeeded(self, ctx: Context) -> None:
        _settle_running(ctx)

    def failed(self, ctx: Context) -> None:
        if ctx.is_stuck:
            _doubt(ctx)


class StopInstance(Workflow):
    name = "instance.stop"
    verb = _("Stop instance")
    activity = "stopping"
    steps: ClassVar[list[type[Step]]] = [StopOnHost]

    def succeeded(self, ctx: Context) -> None:
        leave_host(ctx.resource_uuid)
        _settle(ctx, InstanceState.STOPPED, is_wanted_running=False)


class RebootInstance(Workflow):
    name = "instance.reboot"
    verb = _("Reboot instance")
    activity = "rebooting"
    steps: ClassVar[list[type[Step]]] = [RebootOnHost]

    def succeeded(self, ctx: Context) -> None:
        _settle_running(ctx)
