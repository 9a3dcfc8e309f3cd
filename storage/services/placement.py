"""Whether and where a host has room for volumes: asked by the scheduler, and again where the bytes are taken."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, OuterRef
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict, Invalid, Text
from cloud.common.models import Availability, Connection
from cloud.common.text import filled
from cloud.infra.models import Host
from storage.models import (
    CacheState,
    DiskOffering,
    Image,
    ImageCache,
    ImageState,
    Media,
    PrimaryStorage,
    PrimaryStorageAttachment,
    StorageCapacity,
    StorageState,
)


@dataclass(frozen=True)
class VolumeNeed:
    """A volume somebody wants: `size_bytes` (0: as large as its image), on which storage if that matters, with the
    limits of which offering."""

    size_bytes: int = 0
    primary_storage: PrimaryStorage | None = None
    image: Image | None = None
    disk_offering: DiskOffering | None = None


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


@dataclass(frozen=True)
class Choice:
    """Where a volume goes: `size_bytes` of it, on this storage of a host."""

    need: VolumeNeed
    size_bytes: int
    capacity: StorageCapacity


class Rooms:
    """What the storages of some hosts have left, as read once: one query, however many hosts there are.

    `fit` takes what it gives from this reading, so that several volumes are planned one after another. Nothing is
    promised: that is for `volumes.create_all`, which may find that somebody else was quicker.
    """

    def __init__(self, hosts: Iterable[Host], needs: Iterable[VolumeNeed]) -> None:
        self._hosts = list(hosts)
        images = {need.image.pk for need in needs if need.image}
        there = ImageCache.objects.filter(
            primary_storage=OuterRef("primary_storage"), host=OuterRef("host"), image_uuid__in=images
        )
        attached = PrimaryStorageAttachment.objects.filter(
            primary_storage=OuterRef("primary_storage"), cluster=OuterRef("host__cluster")
        )
        rows = StorageCapacity.objects.filter(host__in=self._hosts).select_related("primary_storage")
        self._rows: dict[Any, list[Any]] = defaultdict(list)
        for row in rows.annotate(
            is_attached=Exists(attached),
            leaving=ArraySubquery(there.filter(state=CacheState.EVICTING).values("image_uuid")),
            cached=ArraySubquery(there.exclude(state=CacheState.EVICTING).values("image_uuid")),
        ):
            self._rows[row.host_id].append(row)
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what `fit` took."""
        self._left = {row.pk: row.room_bytes for rows in self._rows.values() for row in rows}
        self._copies = {(row.pk, image) for rows in self._rows.values() for row in rows for image in row.cached or ()}

    def fit(self, host: Host, needs: Iterable[VolumeNeed]) -> list[Choice] | None:
        """Where these volumes go on the host, each on the roomiest storage that can hold it; None when they do not."""
        left, copies = dict(self._left), set(self._copies)
        chosen = [self._fit(host, need) for need in needs]
        if None not in chosen:
            return [choice for choice in chosen if choice]
        self._left, self._copies = left, copies
        return None

    def reason_against(self, host: Host, needs: Iterable[VolumeNeed]) -> Text | None:
        """Why the host has no room for these volumes; None when it has."""
        left, copies = dict(self._left), set(self._copies)
        misfit = next((need for need in needs if self._fit(host, need) is None), None)
        reason = self._reason(host, misfit) if misfit else None
        self._left, self._copies = left, copies
        return reason

    def _fit(self, host: Host, need: VolumeNeed) -> Choice | None:
        size = size_bytes(need)
        for row in self._usable(host, need.primary_storage):
            demand = self._demand(row, need)
            if demand <= self._left[row.pk] and not (need.image and need.image.pk in (row.leaving or ())):
                self._left[row.pk] -= demand
                if need.image:
                    self._copies.add((row.pk, need.image.pk))
                return Choice(need, size, row)
        return None

    def _usable(self, host: Host, storage: PrimaryStorage | None) -> list[Any]:
        rows = [
            row
            for row in self._rows[host.pk]
            if row.is_open
            and row.is_attached
            and not row.failure
            and row.reported_at is not None
            and row.primary_storage.is_taking_volumes
            and (storage is None or storage.pk == row.primary_storage_id)
        ]
        return sorted(rows, key=lambda row: (-self._left[row.pk], str(row.pk)))

    def _demand(self, row: StorageCapacity, need: VolumeNeed) -> int:
        lacks = need.image is not None and (row.pk, need.image.pk) not in self._copies
        return size_bytes(need) + (need.image.actual_size_bytes if need.image and lacks else 0)

    def _reason(self, host: Host, need: VolumeNeed) -> Text:
        usable = self._usable(host, need.primary_storage)
        if not usable:
            return self._without_storage(host, need.primary_storage)
        demand = self._demand(usable[0], need)
        if demand <= self._left[usable[0].pk]:
            return _("Its copy of the image is just being removed.")
        return filled(
            _("Its storage has %(room)s left and %(demand)s are needed."),
            room=filesizeformat(self._left[usable[0].pk]),
            demand=filesizeformat(demand),
        )

    @cached_property
    def _attached(self) -> set[tuple[Any, Any]]:
        """The (storage, cluster) pairs of these hosts' clusters."""
        rows = PrimaryStorageAttachment.objects.filter(cluster__in={host.cluster_id for host in self._hosts})
        return set(rows.values_list("primary_storage", "cluster"))

    def _without_storage(self, host: Host, storage: PrimaryStorage | None) -> Text:
        if storage is None:
            if not any(cluster == host.cluster_id for _storage, cluster in self._attached):
                return _("No primary storage is attached to its cluster.")
            return _("None of its primary storages can be used now.")
        name = {"storage": storage.name}
        if storage.state != StorageState.READY or storage.availability != Availability.ENABLED:
            return filled(_("The primary storage %(storage)s takes no new volumes."), **name)
        if (storage.pk, host.cluster_id) not in self._attached:
            return filled(_("The primary storage %(storage)s is not attached to its cluster."), **name)
        if storage.connection != Connection.CONNECTED:
            return filled(_("The primary storage %(storage)s is not connected."), **name)
        row = next((row for row in self._rows[host.pk] if row.primary_storage_id == storage.pk), None)
        if row is not None and row.failure:
            return filled(_("The primary storage %(storage)s fails there: %(failure)s"), **name, failure=row.failure)
        return filled(_("The primary storage %(storage)s has not been reported by this host yet."), **name)


def reason_against(host: Host, needs: Iterable[VolumeNeed]) -> Text | None:
    """Why these volumes cannot be made on the host; None when they can. Nothing is promised."""
    wanted = list(needs)
    return Rooms([host], wanted).reason_against(host, wanted)
