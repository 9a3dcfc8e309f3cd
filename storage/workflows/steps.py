"""Steps about volumes for the workflows of whoever uses them.

They read `ctx["agent"]`, the agent uuid of the host, and `ctx["volumes"]`, the volumes' uuids. `VolumeReservation`
comes before whatever else may fail, `CacheImages` before `CreateVolumes`.
"""

from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Unavailable
from cloud.common.models import Connection
from cloud.common.text import filled
from cloud.common.wire import Document, Message
from cloud.config.services import value
from cloud.infra import streams
from cloud.jobs.workflow import AgentStep, Context, Step, minutes
from storage import messages
from storage.models import CacheState, Volume, VolumeState, copies

TICKET_TTL_S = 300
READ_IMAGE = "storage.image_read"


def volumes_of(ctx: Context) -> list[Volume]:
    """The job's volumes that still have a row, with what the messages need of them."""
    rows = Volume.objects.filter(pk__in=ctx.get("volumes", []))
    return list(rows.select_related("primary_storage__zone", "image__backup_storage__agent", "cache", "host__cluster"))


def place(storage: Any) -> messages.StoragePlace:
    """A storage as its agent knows it."""
    return messages.StoragePlace(uuid=str(storage.pk), kind=storage.kind, path=storage.path)


class VolumeReservation(Step):
    """The service promised the bytes; the undo gives them back."""

    label = _("Reserving storage")
    releases = True

    def undo(self, ctx: Context) -> None:
        copies.release_all(ctx.get("volumes", []))


class _HostStep(AgentStep):
    def applies(self, ctx: Context) -> bool:
        return bool(ctx.get("volumes"))

    def agent(self, ctx: Context) -> UUID | str | None:
        agent: str | None = ctx.get("agent")
        return agent


class CacheImages(_HostStep):
    """The host pulls the images that it lacks from their image servers."""

    label = _("Fetching the image to the host")
    deadline = minutes(120)
    is_bulk = True
    weight = 5.0

    def applies(self, ctx: Context) -> bool:
        rows = Volume.objects.filter(pk__in=ctx.get("volumes", []))
        return rows.filter(cache__state=CacheState.PENDING, image__isnull=False).exists()

    def ask(self, ctx: Context) -> Message | None:
        wanted = {volume.cache_id: volume for volume in volumes_of(ctx) if self._is_lacking(volume)}
        if not wanted:
            return None
        storage = next(iter(wanted.values())).primary_storage
        reserve = value("primary_storage.reserved_capacity", storage, storage.zone)
        return messages.CacheImages([_origin(volume) for volume in wanted.values()], reserve)

    def answered(self, ctx: Context, body: Document) -> None:
        copies.note_ready(ctx["volumes"])

    def undo_ask(self, ctx: Context) -> Message | None:
        parts = {
            volume.cache_id: messages.PartialImage(str(volume.cache.image_uuid), place(volume.primary_storage))
            for volume in volumes_of(ctx)
            if volume.cache and self._is_lacking(volume)
        }
        return messages.ForgetPartialImages(list(parts.values())) if parts else None

    @staticmethod
    def _is_lacking(volume: Volume) -> bool:
        return bool(volume.cache and volume.cache.state == CacheState.PENDING and volume.image)


class CreateVolumes(_HostStep):
    """The host makes the volumes' files."""

    label = _("Creating the volumes")

    def ask(self, ctx: Context) -> Message | None:
        rows = volumes_of(ctx)
        return messages.CreateVolumes([_new(volume) for volume in rows]) if rows else None

    def answered(self, ctx: Context, body: Document) -> None:
        Volume.objects.filter(pk__in=ctx["volumes"], state=VolumeState.CREATING).update(state=VolumeState.READY)

    def undo_ask(self, ctx: Context) -> Message | None:
        return _deletion(ctx)

    def undo_answered(self, ctx: Context, body: Document) -> None:
        Volume.objects.filter(pk__in=ctx["volumes"]).update(state=VolumeState.CREATING)


class DeleteVolumes(_HostStep):
    """The host removes the volumes' files; their bytes are free again. Nothing brings them back."""

    label = _("Deleting the volumes")
    is_cancellable = False

    def ask(self, ctx: Context) -> Message | None:
        return _deletion(ctx)

    def answered(self, ctx: Context, body: Document) -> None:
        copies.release_all(ctx["volumes"])


def _origin(volume: Volume) -> messages.ImageOrigin:
    image = volume.image
    assert image is not None
    server = image.backup_storage
    if server.agent is None or server.connection != Connection.CONNECTED:
        raise Unavailable(
            filled(
                _("The image server %(server)s, which holds %(image)s, is not connected."),
                server=server.name,
                image=image.name,
            ),
            code="image_server_away",
            advice=_("Check its connection and try again."),
        )
    params = {"storage": vars(place(server)), "image": str(image.pk)}
    return messages.ImageOrigin(
        image=str(image.pk),
        storage=place(volume.primary_storage),
        actual_size_bytes=image.actual_size_bytes,
        content_sha256=image.content_sha256,
        address=server.agent.address,
        port=streams.STREAM_PORT,
        ticket=streams.ticket(server.agent.pk, READ_IMAGE, image.pk, params, TICKET_TTL_S),
    )


def _new(volume: Volume) -> messages.NewVolume:
    image = str(volume.cache.image_uuid) if volume.cache else None
    return messages.NewVolume(str(volume.pk), place(volume.primary_storage), volume.size_bytes, image)


def _deletion(ctx: Context) -> Message | None:
    gone = [messages.OldVolume(str(volume.pk), place(volume.primary_storage)) for volume in volumes_of(ctx)]
    return messages.DeleteVolumes(gone) if gone else None
