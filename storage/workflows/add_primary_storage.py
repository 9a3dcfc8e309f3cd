"""A primary storage becomes usable on the hosts of clusters."""

from django.utils.translation import gettext_lazy as _

from cloud.jobs.workflow import Context, Workflow
from storage.models import PrimaryStorage, StorageState, attachments
from storage.workflows.waiting import StorageOnHosts


class AddPrimaryStorage(Workflow):
    name = "primary_storage.add"
    verb = _("Add primary storage")
    activity = "creating"
    steps = [StorageOnHosts]

    def succeeded(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.settle(storage)
            PrimaryStorage.objects.filter(pk=storage.pk).update(state=StorageState.READY)

    def failed(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.remove(storage, ctx["clusters"])
            storage.delete()


class AttachPrimaryStorage(Workflow):
    name = "primary_storage.attach"
    verb = _("Attach primary storage")
    activity = "attaching"
    steps = [StorageOnHosts]

    def succeeded(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.settle(storage)

    def failed(self, ctx: Context) -> None:
        if storage := PrimaryStorage.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            attachments.remove(storage, ctx["clusters"])
            attachments.settle(storage)
