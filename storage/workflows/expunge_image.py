"""An image leaves for good."""

from typing import ClassVar
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.wire import Message
from cloud.jobs.workflow import AgentStep, Context, Step, Workflow, minutes
from storage import messages
from storage.models import Image, copies, shelf
from storage.workflows.steps import place


class RuleOutRecovery(Step):
    """From here on the file goes: an image that may have lost it is not taken out of the bin as if it were whole."""

    label = _("Ruling out recovery")

    def run(self, ctx: Context) -> None:
        Image.objects.filter(pk=ctx.resource_uuid).update(content_sha256="")


class RemoveImage(AgentStep):
    """The image server removes the file."""

    label = _("Removing the image")
    deadline = minutes(10)
    is_bulk = True
    is_cancellable = False

    def agent(self, ctx: Context) -> UUID | str | None:
        return ctx.resource.backup_storage.agent_id if ctx.resource else None

    def ask(self, ctx: Context) -> Message | None:
        image: Image | None = ctx.resource
        return messages.DeleteImage(str(image.pk), place(image.backup_storage)) if image else None


class ExpungeImage(Workflow):
    name = "image.expunge"
    verb = _("Expunge image")
    activity = "expunging"
    steps: ClassVar[list[type[Step]]] = [RuleOutRecovery, RemoveImage]

    def succeeded(self, ctx: Context) -> None:
        if image := Image.objects.filter(pk=str(ctx.job.resource_uuid)).first():
            copies.evict_image(image)
            shelf.forget(image.pk)
