"""Image servers: enrolled as a host is, reconnected, taken out of the cloud."""

from typing import ClassVar

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.infra.models import Agent
from cloud.infra.workflows import steps
from cloud.infra.workflows.delete_host import ForgetCleanUps, RetireAgent, RevokeAccess
from cloud.jobs.workflow import Context, Step, WaitStep, Workflow, minutes
from storage.models import BackupStorage, StorageState
from storage.workflows.waiting import topic


class StorageOnServer(WaitStep):
    """The server makes the directory and says how much room there is."""

    label = _("Preparing the storage on the server")
    # The server tells again after four minutes: one report that was lost fails nothing.
    deadline = minutes(5)

    def topics(self, ctx: Context) -> list[str]:
        return [topic(ctx.job.resource_uuid)]

    def is_met(self, ctx: Context) -> bool:
        server: BackupStorage | None = ctx.resource
        if server is not None and server.failure:
            raise Problem(
                filled(_("The server cannot use the path: %(failure)s"), failure=server.failure),
                code="storage_not_usable",
                advice=_("Correct it on the server, or give another path."),
            )
        return server is None or server.reported_at is not None


class AddBackupStorage(Workflow):
    name = "backup_storage.add"
    verb = _("Add image server")
    activity = "adding"
    steps: ClassVar[list[type[Step]]] = [*steps.ENROL, StorageOnServer]

    def succeeded(self, ctx: Context) -> None:
        steps.finished(ctx)
        BackupStorage.objects.filter(pk=str(ctx.job.resource_uuid)).update(state=StorageState.READY)

    def failed(self, ctx: Context) -> None:
        """A server that was never enrolled is none: the job keeps the reason, nothing else stays."""
        steps.finished(ctx)
        BackupStorage.objects.filter(pk=str(ctx.job.resource_uuid)).delete()
        steps.vanish(ctx)


class ReconnectBackupStorage(Workflow):
    name = "backup_storage.reconnect"
    verb = _("Reconnect image server")
    activity = "reconnecting"
    steps: ClassVar[list[type[Step]]] = steps.ENROL

    def succeeded(self, ctx: Context) -> None:
        steps.finished(ctx)

    def failed(self, ctx: Context) -> None:
        steps.finished(ctx)
        steps.restore(ctx)


class DeleteBackupStorage(Workflow):
    name = "backup_storage.delete"
    verb = _("Delete image server")
    activity = "deleting"
    steps: ClassVar[list[type[Step]]] = [RetireAgent, RevokeAccess, ForgetCleanUps]

    def succeeded(self, ctx: Context) -> None:
        BackupStorage.objects.filter(pk=str(ctx.job.resource_uuid)).delete()
        Agent.objects.filter(pk=ctx["agent"]).delete()

    def failed(self, ctx: Context) -> None:
        BackupStorage.objects.filter(pk=str(ctx.job.resource_uuid)).update(state=StorageState.READY)
