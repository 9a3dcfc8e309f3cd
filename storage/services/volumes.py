"""Volumes: promising their bytes, giving them back, and what a domain needs to know of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import quotas
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.errors import Exhausted
from cloud.infra.models import Host
from cloud.infra.services import changes
from storage import messages
from storage.models import ImageCache, Volume, VolumeKind, VolumeState, copies, promises
from storage.models.volume import LIMITS
from storage.services import placement
from storage.services.placement import Choice, VolumeNeed

SERIAL_LENGTH = 20  # of a virtio block device
_TURNS = 5


class RoomTaken(Exhausted):
    """Somebody else took the room after it was planned: roll back, plan again."""

    code = "storage_exhausted"
    advice = _("Many ask for the same room at once. Try again.")


@dataclass(frozen=True)
class NewVolume:
    """A volume to write down, where it was planned to go."""

    name: str
    kind: VolumeKind | str
    choice: Choice
    project: Any
    uuid: UUID = field(default_factory=uuid4)
    instance_uuid: UUID | None = None
    device_index: int | None = None


def create_all(wanted: Sequence[NewVolume]) -> list[Volume]:
    """Write volumes down and promise their bytes, and their images', in the caller's transaction.

    No file is made here, `workflows.steps` do that; call it in the transaction that opens their jobs. Raises RoomTaken
    when the room is not there any more; then the caller rolls back.
    """
    sizes = defaultdict[UUID, int](int)
    for new in wanted:
        sizes[new.choice.capacity.pk] += new.choice.size_bytes
    if not sizes:
        return []
    caches = None
    if promises.take_all(sizes):
        pairs = [(new.choice.need.image, new.choice.capacity) for new in wanted]
        caches = copies.expect_all((image, capacity) for image, capacity in pairs if image)
    if caches is None:
        raise RoomTaken()
    return Volume.objects.bulk_create([_row(new, caches) for new in wanted])


def _row(new: NewVolume, caches: dict[tuple[UUID, UUID], ImageCache]) -> Volume:
    need, capacity = new.choice.need, new.choice.capacity
    return Volume(
        uuid=new.uuid,
        name=new.name,
        kind=new.kind,
        project_id=getattr(new.project, "pk", new.project),
        size_bytes=new.choice.size_bytes,
        primary_storage=capacity.primary_storage,
        host_id=capacity.host_id,
        image=need.image,
        cache=caches[need.image.pk, capacity.pk] if need.image else None,
        disk_offering=need.disk_offering,
        instance_uuid=new.instance_uuid,
        device_index=new.device_index,
        state=VolumeState.CREATING,
        **{limit: getattr(need.disk_offering, limit, None) for limit in LIMITS},
    )


@transaction.atomic
def create(*, need: VolumeNeed, host: Host, **fields: Any) -> Volume:
    """Write one volume down on the roomiest storage of the host that fits, as `create_all` does.

    `fields` are those of NewVolume. Raises Invalid when the volume is smaller than its image, Conflict when the image
    cannot be used, Exhausted when no storage of the host has room.
    """
    size = placement.size_bytes(need)
    if need.image:
        placement.expect_usable(need.image)
    for _turn in range(_TURNS):
        chosen = placement.Rooms([host], [need]).fit(host, [need])
        if chosen is None:
            break
        try:
            with transaction.atomic():
                made = create_all([NewVolume(choice=chosen[0], **fields)])[0]
                quotas.take(made.project_id, made.amounts)
                return made
        except RoomTaken:
            continue
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
        **{limit: getattr(volume, limit) or 0 for limit in LIMITS},
    )


@acting("volume.update")
def update(volume: Volume, *, actor: Actor, **changed: Any) -> Volume:
    """Change the name or the description."""
    return changes.update(volume, "volume.update", actor=actor, changed=changed)
