"""Volumes: promising their bytes, giving them back, and what a domain needs to know of them."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Exhausted
from cloud.infra.models import Host
from cloud.infra.services import changes
from storage import messages
from storage.models import DiskOffering, Volume, VolumeKind, VolumeState, copies, promises
from storage.services import placement
from storage.services.placement import VolumeNeed

SERIAL_LENGTH = 20  # of a virtio block device


@transaction.atomic
def create(
    *,
    uuid: UUID,
    name: str,
    kind: VolumeKind | str,
    need: VolumeNeed,
    host: Host,
    project: Any,
    instance_uuid: UUID | None,
    device_index: int | None,
    disk_offering: DiskOffering | None = None,
) -> Volume:
    """Write a volume down and promise its bytes, and its image's, on a storage of the host; the roomiest that fits.

    No file is made here, `workflows.steps` do that; call it in the transaction that opens their job. Raises Invalid
    when the volume is smaller than its image, Conflict when the image cannot be used, Exhausted when no storage of the
    host has room.
    """
    size = placement.size_bytes(need)
    if need.image:
        placement.expect_usable(need.image)
    volume = Volume(
        uuid=uuid,
        name=name,
        kind=kind,
        project_id=getattr(project, "pk", project),
        size_bytes=size,
        image=need.image,
        disk_offering=disk_offering,
        instance_uuid=instance_uuid,
        device_index=device_index,
        state=VolumeState.CREATING,
    )
    for capacity in placement.candidates(host):
        if need.primary_storage is not None and need.primary_storage.pk != capacity.primary_storage_id:
            continue
        if not promises.take(capacity, size, cluster=host.cluster):
            continue
        cache = copies.expect(need.image, capacity) if need.image else None
        if need.image and cache is None:
            promises.give_back(capacity.primary_storage, host, size)
            continue
        volume.primary_storage, volume.host, volume.cache = capacity.primary_storage, capacity.host, cache
        volume.save(force_insert=True)
        return volume
    raise Exhausted(
        _("No primary storage of %(host)s has room for %(size)s.") % {"host": host, "size": filesizeformat(size)},
        code="storage_exhausted",
        advice=_("Delete volumes that are not needed, add storage, or ask for a smaller volume."),
        reason=str(placement.reason_against(host, [need]) or ""),
    )


def release(volume: Volume | UUID | str) -> bool:
    """Delete the volume's row and give back what it promised, once; see `models.copies.release`."""
    return copies.release(volume)


def source(volume: Volume) -> messages.VolumeSource:
    """The volume as the domain that uses it needs it."""
    return messages.VolumeSource(
        uuid=str(volume.pk),
        kind=volume.kind,
        path=f"{volume.primary_storage.path}/volumes/{volume.pk}.{volume.format}",
        format=volume.format,
        size_bytes=volume.size_bytes,
        serial=volume.pk.hex[:SERIAL_LENGTH],
        device_index=volume.device_index or 0,
        storage_kind=volume.primary_storage.kind,
        is_shareable=volume.is_shareable,
    )


@transaction.atomic
def update(volume: Volume, *, actor: Actor, **changed: Any) -> Volume:
    """Change the name or the description."""
    return changes.update(volume, "volume.update", actor=actor, changed=changed)
