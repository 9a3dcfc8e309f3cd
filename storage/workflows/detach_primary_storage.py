"""A primary storage leaves clusters, or leaves altogether. Volumes were refused before the job began."""

from django.utils.translation import gettext_lazy as _

from cloud.jobs.workflow import Context, Step, Workflow
from storage.models import PrimaryStorage, attachments
from storage.workflows.waiting import ImagesLeaveHosts


class LeaveClusters(Step):
    """From here on the hosts know nothing of the storage; its empty directories stay."""

    label = _("Detaching the storage")
    is_cancellable = False

    def run(self, ctx: Context) -> None:
        storage: PrimaryStorage | None = ctx.resource
        if storage and (count := attachments.remove(storage, ctx["clusters"])):
            raise attachments.in_use(storage, count)


class DetachPrimaryStorage(Workflow):
    name = "primary_storage.detach"
    verb = _("Detach primary storage")
    activity = "detaching"
    steps = [ImagesLeaveHosts, LeaveClusters]

    def succeeded(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.settle(storage)

    def failed(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.settle(storage)


class DeletePrimaryStorage(Workflow):
    name = "primary_storage.delete"
    verb = _("Delete primary storage")
    activity = "deleting"
    steps = [ImagesLeaveHosts, LeaveClusters]

    def succeeded(self, ctx: Context) -> None:
        PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).delete()

    def failed(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.settle(storage)
