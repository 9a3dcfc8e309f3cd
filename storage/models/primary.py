"""Where volumes live: primary storages, the clusters that use them, and what they can hold."""

import uuid

from django.db import models
from django.db.models import F, FloatField, Q, Value
from django.db.models.functions import Cast, Greatest
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Availability, Available, Connected, Connection, Resource, Stateful
from cloud.infra.models import whole


class StorageKind(models.TextChoices):
    LOCAL = "local", _("Local storage")


class StorageState(models.TextChoices):
    CREATING = "creating", _("Being added")
    READY = "ready", _("Ready")
    DELETING = "deleting", _("Being removed")


# Activities of a storage while it changes which clusters use it.
CHANGING = frozenset({"creating", "attaching", "detaching", "deleting"})


class PrimaryStorage(Resource, Stateful, Available, Connected):
    """Storage of volumes, used by the hosts of the clusters it is attached to. `path` is a directory on each host."""

    kind_word = "primary_storage"

    kind = models.CharField(max_length=16, choices=StorageKind, default=StorageKind.LOCAL)
    zone = models.ForeignKey("infra.Zone", on_delete=models.PROTECT, related_name="primary_storages")
    path = models.CharField(max_length=1024)
    clusters = models.ManyToManyField(
        "infra.Cluster", through="PrimaryStorageAttachment", related_name="primary_storages"
    )

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="primary_storage_created")]
        constraints = [models.UniqueConstraint(fields=["zone", "name"], name="primary_storage_name_once")]

    @property
    def is_taking_volumes(self) -> bool:
        """Whether new volumes may land on it."""
        return (self.state, self.availability, self.connection) == (
            StorageState.READY,
            Availability.ENABLED,
            Connection.CONNECTED,
        )


class PrimaryStorageAttachment(models.Model):
    """A cluster uses a primary storage."""

    primary_storage = models.ForeignKey(PrimaryStorage, on_delete=models.CASCADE, related_name="attachments")
    cluster = models.ForeignKey("infra.Cluster", on_delete=models.PROTECT, related_name="storage_attachments")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["primary_storage", "cluster"], name="storage_attachment_once"),
        ]


class StorageCapacity(models.Model):
    """What a storage can hold, on one host (local storage) or as a whole (`host` null), in bytes.

    `total_bytes`, `available_bytes` and `held_bytes` are what the agent saw: the file system, what is free on it and
    what the storage's files take. `used_bytes` is what is promised to volumes and cached images; changed by conditional
    updates only (`promises`). Nothing is promised while `is_open` is false.

    `limit_bytes` is what may be promised in all: what is free and what the storage's own files take, less the reserve,
    times the ratio. What other files take on the same file system is not ours to promise. Ratio and reserve are the
    settings that hold for the storage there, written down when they change; the database computes the limit.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    primary_storage = models.ForeignKey(PrimaryStorage, on_delete=models.CASCADE, related_name="capacities")
    host = models.ForeignKey("infra.Host", null=True, on_delete=models.CASCADE, related_name="storage_capacities")
    total_bytes = models.BigIntegerField(default=0)
    available_bytes = models.BigIntegerField(default=0)
    held_bytes = models.BigIntegerField(default=0)
    used_bytes = models.BigIntegerField(default=0)
    ratio = models.FloatField(default=1.0)
    reserved_bytes = models.BigIntegerField(default=1024**3)
    limit_bytes = models.GeneratedField(
        expression=whole(
            Cast(Greatest(F("available_bytes") + F("held_bytes") - F("reserved_bytes"), Value(0)), FloatField())
            * F("ratio")
        ),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    is_open = models.BooleanField(default=True)
    failure = models.TextField(blank=True, default="")
    reported_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["primary_storage", "host"], name="storage_capacity_once", nulls_distinct=False
            ),
            models.CheckConstraint(condition=Q(used_bytes__gte=0), name="storage_capacity_not_negative"),
        ]

    @property
    def room_bytes(self) -> int:
        """What is left to promise, at least 0."""
        return max(0, int(self.limit_bytes) - self.used_bytes)
