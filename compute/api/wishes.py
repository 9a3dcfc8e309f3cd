"""From a request to create instances to the wish that the service takes."""

from typing import Any

from django.utils.translation import gettext as _

from cloud.common.actor import Actor
from cloud.common.errors import Invalid
from cloud.jobs.models import Job
from compute.models import Instance
from compute.services import instances
from compute.services.instances import NicWish, Wish
from storage.models import Image
from storage.services.placement import VolumeNeed


def create(*, actor: Actor, **asked: Any) -> tuple[list[Instance], Job]:
    """Create one or several instances and start them."""
    offering = asked.get("instance_offering")
    wish = Wish(
        name=asked["name"],
        description=asked.get("description", ""),
        count=asked["count"],
        image=asked["image"],
        instance_offering=offering,
        cpu=offering.cpu if offering else asked["cpu"],
        memory_bytes=offering.memory_bytes if offering else asked["memory_bytes"],
        nics=[NicWish(nic["l3_network"], nic.get("ip")) for nic in asked["nics"]],
        root=_root(asked["image"], asked.get("root_volume", {})),
        data=[_data(volume) for volume in asked.get("data_volumes", [])],
        ssh_keys=asked.get("ssh_keys", []),
        user_data=asked.get("user_data", ""),
        zone=asked.get("zone"),
        cluster=asked.get("cluster"),
        host=asked.get("host"),
        is_started=asked["strategy"] == "start",
    )
    return instances.create(wish, actor=actor)


def _root(image: Image, volume: dict[str, Any]) -> VolumeNeed:
    asked = _size(volume)
    if asked is not None and image.size_bytes and asked < image.size_bytes:
        raise Invalid(
            _("The root volume is smaller than the image."),
            errors={"root_volume.size_bytes": [_("Give at least %(size)d bytes.") % {"size": image.size_bytes}]},
        )
    return VolumeNeed(
        size_bytes=asked or image.size_bytes,
        primary_storage=volume.get("primary_storage"),
        image=image,
        disk_offering=volume.get("disk_offering"),
    )


def _data(volume: dict[str, Any]) -> VolumeNeed:
    return VolumeNeed(
        size_bytes=_size(volume) or 0,
        primary_storage=volume.get("primary_storage"),
        disk_offering=volume.get("disk_offering"),
    )


def _size(volume: dict[str, Any]) -> int | None:
    offering = volume.get("disk_offering")
    size: int | None = volume.get("size_bytes") or (offering.size_bytes if offering else None)
    return size
