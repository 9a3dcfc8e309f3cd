"""An image comes from a URL to an image server."""

from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.wire import Document, Message
from cloud.config.services import value
from cloud.jobs.workflow import AgentStep, Context, Workflow, minutes
from storage import messages
from storage.models import Image, ImageState, refused, shelf
from storage.workflows.steps import place


class DownloadImage(AgentStep):
    """The image server fetches the file, checks it, and keeps it as qcow2 or ISO."""

    label = _("Downloading the image")
    deadline = minutes(12 * 60)
    is_bulk = True

    def agent(self, ctx: Context) -> UUID | str | None:
        return ctx.resource.backup_storage.agent_id if ctx.resource else None

    def ask(self, ctx: Context) -> Message | None:
        image: Image | None = ctx.resource
        if image is None:
            raise Problem(_("The image is gone."), code="gone")
        return messages.DownloadImage(
            image=str(image.pk),
            storage=place(image.backup_storage),
            url=image.url,
            media=image.media,
            format=image.format,
            checksum=image.checksum,
            max_bytes=value("image.max_size"),
            reserve_bytes=value("backup_storage.reserved_capacity", image.backup_storage),
            refused=refused.networks(),
        )

    def answered(self, ctx: Context, body: Document) -> None:
        report = messages.ImageReport.from_document(body)
        image: Image = ctx.resource
        image.format = report.format
        image.size_bytes = report.size_bytes
        image.actual_size_bytes = report.actual_size_bytes
        image.content_sha256 = report.content_sha256
        image.checksum = image.checksum or f"sha256:{report.source_sha256}"
        shelf.measure(image)

    def undo_ask(self, ctx: Context) -> Message | None:
        image: Image | None = ctx.resource
        return messages.DeleteImage(str(image.pk), place(image.backup_storage)) if image else None


class AddImage(Workflow):
    """When it fails the job remains as the record of it, and nothing else.

    Only an image whose file could not be removed stays, as broken, so that somebody can delete it later.
    """

    name = "image.add"
    verb = _("Add image")
    activity = "downloading"
    steps = [DownloadImage]

    def succeeded(self, ctx: Context) -> None:
        Image.objects.filter(pk=str(ctx.job.resource_uuid)).update(state=ImageState.READY)

    def failed(self, ctx: Context) -> None:
        rows = Image.objects.filter(pk=str(ctx.job.resource_uuid))
        if ctx.is_stuck:
            rows.update(state=ImageState.ERROR, state_reason=(ctx.job.error or {}).get("code", ""))
        else:
            shelf.forget(str(ctx.job.resource_uuid))
