"""Settling the state of what no job is at work on."""

from typing import Any

from django.utils.translation import gettext_noop

from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.jobs import settling
from storage.models import Image, ImageState, PrimaryStorage, StorageState, Volume, attachments


@acting("state.settle", checks=[settling.NO_LIVE_JOB])
def settle_storage(storage: Any, *, actor: Actor) -> None:
    """Settle a primary storage or an image server: it is ready; its connection says whether it can be reached.

    What it was to lose, or to leave, it keeps: delete or detach it again.
    """
    before = {"state": storage.state, "activity": storage.activity}
    settling.free(storage)
    type(storage)._default_manager.filter(pk=storage.pk).update(state=StorageState.READY)
    if isinstance(storage, PrimaryStorage):
        attachments.settle(storage)
    settling.record(storage, actor=actor, before=before)


@acting("state.settle", checks=[settling.NO_LIVE_JOB])
def settle_image(image: Image, *, actor: Actor) -> None:
    """Settle an image: ready when its content is known, broken when it never came; one in the bin stays there."""
    before = {"state": image.state, "activity": image.activity}
    settling.free(image)
    if image.state != ImageState.DELETED:
        is_whole = bool(image.content_sha256)
        Image.objects.filter(pk=image.pk).update(
            state=ImageState.READY if is_whole else ImageState.ERROR,
            state_reason="" if is_whole else gettext_noop("Its job ended before the image was complete."),
        )
    settling.record(image, actor=actor, before=before)


@acting("state.settle", checks=[settling.NO_LIVE_JOB])
def settle_volume(volume: Volume, *, actor: Actor) -> None:
    """Take the mark of an ended job off a volume. Its bytes stay promised: only its deletion gives them back."""
    before = {"state": volume.state, "activity": volume.activity}
    settling.free(volume)
    settling.record(volume, actor=actor, before=before)
