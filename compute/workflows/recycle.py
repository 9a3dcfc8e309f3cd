"""Into the recycle bin, out of it, and away for good."""

from typing import ClassVar

from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.jobs.workflow import Context, Step, Workflow
from compute.models import Instance, InstanceState
from compute.workflows import bookings
from compute.workflows.bookings import leave_host, release_belongings
from compute.workflows.steps import RemoveFromHost
from storage.models import Volume, VolumeState
from storage.workflows.steps import DeleteVolumes


class DestroyInstance(Workflow):
    """Switched off and taken from its host; volumes and addresses stay with it in the recycle bin."""

    name = "instance.destroy"
    verb = _("Destroy instance")
    activity = "destroying"
    steps: ClassVar[list[type[Step]]] = [RemoveFromHost]

    def succeeded(self, ctx: Context) -> None:
        leave_host(ctx.resource_uuid)
        Instance.objects.filter(pk=ctx.resource_uuid).update(
            state=InstanceState.DESTROYED,
            state_reason="",
            is_wanted_running=False,
            destroyed_at=Now(),
            settled_at=Now(),
        )


class TakeFromBin(Step):
    label = _("Taking it out of the recycle bin")


class RecoverInstance(Workflow):
    name = "instance.recover"
    verb = _("Recover instance")
    activity = "recovering"
    steps: ClassVar[list[type[Step]]] = [TakeFromBin]

    def succeeded(self, ctx: Context) -> None:
        Instance.objects.filter(pk=ctx.resource_uuid).update(
            state=InstanceState.STOPPED, state_reason="", destroyed_at=None, settled_at=Now()
        )


class NoWayBack(Step):
    """From here on files go: what of them is left cannot be recovered."""

    label = _("Ruling out recovery")

    def run(self, ctx: Context) -> None:
        Volume.objects.filter(instance_uuid=ctx.resource_uuid).update(state=VolumeState.DELETED)


class ReleaseBelongings(Step):
    """Runs when domain and files are gone: only then may addresses and disk space go to others."""

    label = _("Giving back addresses and disk space")
    is_cancellable = False

    def run(self, ctx: Context) -> None:
        leave_host(ctx.resource_uuid)
        release_belongings(ctx.resource_uuid)


class ExpungeInstance(Workflow):
    name = "instance.expunge"
    verb = _("Expunge instance")
    activity = "expunging"
    steps: ClassVar[list[type[Step]]] = [RemoveFromHost, NoWayBack, DeleteVolumes, ReleaseBelongings]

    def succeeded(self, ctx: Context) -> None:
        bookings.forget(ctx.resource_uuid)
