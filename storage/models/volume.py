"""Volumes, the offerings they are made by, and the cached images that root volumes stand on."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Available, Resource, Stateful
from cloud.common.search import search_index, search_text

LIMITS = ("read_iops", "write_iops", "read_bytes_per_s", "write_bytes_per_s")


class Limited(models.Model):
    """What a disk may do a second; null: no limit."""

    read_iops = models.PositiveIntegerField(null=True, blank=True)
    write_iops = models.PositiveIntegerField(null=True, blank=True)
    read_bytes_per_s = models.BigIntegerField(null=True, blank=True)
    write_bytes_per_s = models.BigIntegerField(null=True, blank=True)

    class Meta:
        abstract = True


class DiskOffering(Resource, Available, Limited):
    """A size of volume to choose from, with what it may do a second."""

    kind_word = "disk_offering"

    size_bytes = models.BigIntegerField()

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="disk_offering_created")]
        constraints = [models.CheckConstraint(condition=Q(size_bytes__gt=0), name="disk_offering_has_size")]


class CacheState(models.TextChoices):
    PENDING = "pending", _("Expected")
    READY = "ready", _("Ready")
    EVICTING = "evicting", _("Being removed")


class ImageCache(models.Model):
    """An image's copy on a primary storage, near the volumes that stand on it.

    It outlives its image: `image_uuid`, which names the file, stays when the image is expunged; then it goes with its
    last volume. `size_bytes` is what is promised for it.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey("Image", null=True, on_delete=models.SET_NULL, related_name="caches")
    image_uuid = models.UUIDField()
    primary_storage = models.ForeignKey("PrimaryStorage", on_delete=models.PROTECT, related_name="caches")
    host = models.ForeignKey("infra.Host", null=True, on_delete=models.CASCADE, related_name="image_caches")
    size_bytes = models.BigIntegerField()
    state = models.CharField(max_length=16, choices=CacheState, default=CacheState.PENDING)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["image_uuid", "primary_storage", "host"], name="image_cache_once", nulls_distinct=False
            ),
        ]


class VolumeKind(models.TextChoices):
    ROOT = "root", _("Root volume")
    DATA = "data", _("Data volume")


class VolumeState(models.TextChoices):
    CREATING = "creating", _("Being created")
    READY = "ready", _("Ready")
    DELETED = "deleted", _("In the recycle bin")


class Volume(Resource, Stateful, Limited):
    """A disk. Its row is the promise of its bytes: they are given back when the row is deleted, and only then.

    Its limits are those of the offering it was made by, as they were then. `host` is set on local storage. `cache` is
    the copy of `image` that the volume's file stands on.
    """

    kind_word = "volume"

    kind = models.CharField(max_length=8, choices=VolumeKind)  # type: ignore[assignment]
    size_bytes = models.BigIntegerField()
    format = models.CharField(max_length=16, default="qcow2")
    primary_storage = models.ForeignKey("PrimaryStorage", on_delete=models.PROTECT, related_name="volumes")
    host = models.ForeignKey("infra.Host", null=True, blank=True, on_delete=models.PROTECT, related_name="volumes")
    image = models.ForeignKey("Image", null=True, blank=True, on_delete=models.SET_NULL, related_name="volumes")
    cache = models.ForeignKey(ImageCache, null=True, blank=True, on_delete=models.PROTECT, related_name="volumes")
    disk_offering = models.ForeignKey(
        DiskOffering, null=True, blank=True, on_delete=models.SET_NULL, related_name="volumes"
    )
    instance_uuid = models.UUIDField(null=True, blank=True)
    device_index = models.PositiveSmallIntegerField(null=True, blank=True)
    is_shareable = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)
    search_text = search_text("name")

    @property
    def amounts(self) -> dict[str, int]:
        """What it counts for, by quota."""
        return {"data_volumes": int(self.kind == VolumeKind.DATA), "volume_bytes": self.size_bytes}

    class Meta(Resource.Meta):
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="volume_created"),
            models.Index(fields=["project", "created_at", "uuid"], name="volume_project"),
            models.Index(fields=["name", "uuid"], name="volume_name"),
            models.Index(fields=["instance_uuid"], name="volume_of_instance"),
            search_index("volume_search"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(size_bytes__gt=0), name="volume_has_size"),
            models.UniqueConstraint(
                fields=["instance_uuid", "device_index"],
                name="volume_device_once",
                condition=Q(instance_uuid__isnull=False, is_shareable=False),
            ),
        ]
