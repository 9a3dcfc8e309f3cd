from django.db import models
from django.db.models.functions import Now

from cloud.common.models import Resource, Stateful
from cloud.common.search import search_index, search_text


class InstanceState(models.TextChoices):
    """Settled states only; what a job does to an instance is its `activity`."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    UNKNOWN = "unknown"


ON_HOST = (InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.CRASHED, InstanceState.UNKNOWN)


class Instance(Resource, Stateful):
    """A virtual machine.

    `host` is where it is (or where a job is putting it) and `last_host` where it was; `is_reserved` says that its CPU
    and memory are booked on `host`. `is_wanted_running` is the user's last word on power: after a restart of the host
    the platform brings such an instance back. `boot_id` is the boot of the host in which it was last seen running,
    `settled_at` when the state was last settled. Volumes and NICs are storage's and network's rows, by `instance_uuid`.

    What a user gives the guest at its first boot may hold passwords: it is kept sealed, in `user_data_sealed`.
    `user_data` is what the release before wrote, empty since; it goes with the next release.
    """

    kind_word = "instance"

    zone = models.ForeignKey("infra.Zone", on_delete=models.PROTECT, related_name="+")
    cluster = models.ForeignKey("infra.Cluster", on_delete=models.PROTECT, related_name="+")
    host = models.ForeignKey("infra.Host", null=True, on_delete=models.PROTECT, related_name="+")
    last_host = models.ForeignKey("infra.Host", null=True, on_delete=models.SET_NULL, related_name="+")
    image = models.ForeignKey("storage.Image", null=True, on_delete=models.SET_NULL, related_name="+")
    instance_offering = models.ForeignKey(
        "compute.InstanceOffering", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    cpu = models.PositiveIntegerField()
    memory_bytes = models.PositiveBigIntegerField()
    hostname = models.CharField(max_length=63)
    ssh_keys = models.JSONField(default=list)
    user_data = models.TextField(blank=True, default="", db_default="")
    user_data_sealed = models.TextField(blank=True, default="", db_default="")
    is_reserved = models.BooleanField(default=False)
    is_wanted_running = models.BooleanField(default=False)
    boot_id = models.CharField(max_length=64, blank=True, default="")
    settled_at = models.DateTimeField(db_default=Now())
    destroyed_at = models.DateTimeField(null=True)
    search_text = search_text("name")

    @property
    def booked(self) -> dict[str, int]:
        """What it counts for while CPU and memory are booked for it, by quota."""
        return {"running_instances": 1, "cpu": self.cpu, "memory_bytes": self.memory_bytes}

    class Meta(Resource.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(is_reserved=False) | models.Q(host__isnull=False), name="instance_reserved_on_a_host"
            )
        ]
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="instance_created"),
            models.Index(fields=["project", "created_at", "uuid"], name="instance_project"),
            models.Index(fields=["state", "created_at", "uuid"], name="instance_state"),
            models.Index(fields=["name", "uuid"], name="instance_name"),
            models.Index(fields=["activity"], name="instance_activity", condition=~models.Q(activity="")),
            search_index("instance_search"),
        ]
