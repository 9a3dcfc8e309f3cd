"""Whether and where a host has room for volumes: asked by the scheduler, and again where the bytes are taken."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict, Invalid, Text
from cloud.common.models import Availability, Connection
from cloud.infra.models import Host
from storage.models import (
    CacheState,
    Image,
    ImageCache,
    ImageState,
    Media,
    PrimaryStorage,
    StorageCapacity,
    StorageState,
    promises,
)


@dataclass(frozen=True)
class VolumeNeed:
    """A volume somebody wants: `size_bytes` (0: as large as its image), on which storage if that matters."""

    size_bytes: int = 0
    primary_storage: PrimaryStorage | None = None
    image: Image | None = None


def size_bytes(need: VolumeNeed) -> int:
    """How large the volume becomes. Raises Invalid when the wish is smaller than the image, or there is no size."""
    least = need.image.size_bytes if need.image else 0
    if need.size_bytes and need.size_bytes < least:
        raise Invalid(
            _("The volume is smaller than the image %(image)s, which needs %(size)s.")
            % {"image": need.image, "size": filesizeformat(least)},
            code="volume_smaller_than_image",
            advice=_("Ask for %(bytes)d bytes or more.") % {"bytes": least},
            errors={"size_bytes": [_("At least %(bytes)d bytes are needed.") % {"bytes": least}]},
        )
    wanted = max(need.size_bytes, least)
    if wanted <= 0:
        raise Invalid(_("Say how large the volume should be."), errors={"size_bytes": [_("This is needed.")]})
    return wanted


def expect_usable(image: Image) -> None:
    """Raise Conflict unless volumes can be made from the image."""
    image.expect_state(ImageState.READY)
    if image.media == Media.ISO:
        raise Conflict(
            _("%(image)s is an ISO; volumes are made from templates.") % {"image": image}, code="image_is_iso"
        )


def candidates(host: Host) -> list[StorageCapacity]:
    """The storages that volumes of this host may be made on, the roomiest first."""
    rows = StorageCapacity.objects.filter(
        host=host,
        is_open=True,
        failure="",
        reported_at__isnull=False,
        primary_storage__in=PrimaryStorage.objects.taking_volumes().filter(clusters=host.cluster_id),
    ).select_related("primary_storage__zone", "host__cluster")
    return sorted(rows, key=lambda row: (-promises.room_bytes(row, host.cluster), str(row.pk)))


def reason_against(host: Host, needs: Iterable[VolumeNeed]) -> Text | None:
    """Why these volumes cannot be made on the host; None when they can. Nothing is promised."""
    rooms = {row.primary_storage_id: promises.room_bytes(row, host.cluster) for row in candidates(host)}
    copies = ImageCache.objects.filter(host=host).exclude(state=CacheState.EVICTING)
    cached = set(copies.values_list("image_uuid", "primary_storage_id"))
    for need in needs:
        wanted = size_bytes(need)
        fitting = [pk for pk in rooms if need.primary_storage in (None, pk) or need.primary_storage.pk == pk]  # type: ignore[union-attr]
        if not fitting:
            return _without_storage(host, need.primary_storage)
        best = max(fitting, key=lambda pk: rooms[pk])
        demand = wanted
        if need.image and (need.image.pk, best) not in cached:
            cached.add((need.image.pk, best))
            demand += need.image.actual_size_bytes
        if demand > rooms[best]:
            return _("Its storage has %(room)s left and %(demand)s are needed.") % {
                "room": filesizeformat(rooms[best]),
                "demand": filesizeformat(demand),
            }
        rooms[best] -= demand
    return None


def _without_storage(host: Host, storage: PrimaryStorage | None) -> Text:
    if storage is None:
        attached = PrimaryStorage.objects.filter(clusters=host.cluster_id)
        if not attached.exists():
            return _("No primary storage is attached to its cluster.")
        return _("None of its primary storages can be used now.")
    name = {"storage": storage.name}
    if storage.state != StorageState.READY or storage.availability != Availability.ENABLED:
        return _("The primary storage %(storage)s takes no new volumes.") % name
    if not storage.attachments.filter(cluster=host.cluster_id).exists():
        return _("The primary storage %(storage)s is not attached to its cluster.") % name
    if storage.connection != Connection.CONNECTED:
        return _("The primary storage %(storage)s is not connected.") % name
    row = storage.capacities.filter(host=host).first()
    if row is not None and row.failure:
        return _("The primary storage %(storage)s fails there: %(failure)s") % {**name, "failure": row.failure}
    return _("The primary storage %(storage)s has not been reported by this host yet.") % name
