"""Where the cloud stands: zones, clusters, hosts, the agents on machines and the state that machines should have."""

from typing import Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Availability, Available, Connected, Connection, Resource, ResourceQuerySet, Stateful


class Zone(Resource, Available):
    """The largest unit: holds clusters, layer-2 networks and primary storages."""

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="zone_created")]


class Hypervisor(models.TextChoices):
    KVM = "kvm", _("KVM")
    FAKE = "fake", _("Simulated")


class Cluster(Resource, Available):
    """A group of alike hosts: the same hypervisor, layer-2 networks and primary storages."""

    zone = models.ForeignKey(Zone, on_delete=models.PROTECT, related_name="clusters")
    hypervisor = models.CharField(max_length=16, choices=Hypervisor, default=Hypervisor.KVM)

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="cluster_created")]


class AgentKind(models.TextChoices):
    HOST = "host", _("Host")
    IMAGE_SERVER = "image_server", _("Image server")


class AgentQuerySet(ResourceQuerySet):
    def silent(self) -> Self:
        return self.exclude(connection=Connection.CONNECTED)

    def connected(self) -> Self:
        return self.filter(connection=Connection.CONNECTED)


class Agent(Resource, Connected):
    """The agent process on a machine that does work, with how it was reached and what it may use.

    Of its secrets only what proves them is kept: the Redis password as the hash that Redis itself takes, the metrics
    token sealed with a key outside the database. The SSH secret is not kept at all. `spare_password_hashes` are of
    passwords that an enrolment under way, or one that could not be taken back, may have left on the machine.
    """

    kind = models.CharField(max_length=16, choices=AgentKind)
    address = models.CharField(max_length=255)
    ssh_port = models.PositiveIntegerField(default=22)
    ssh_user = models.CharField(max_length=64, default="root")
    host_key_type = models.CharField(max_length=64, blank=True, default="")
    host_key_fingerprint = models.CharField(max_length=128, blank=True, default="")
    certificate_serial = models.CharField(max_length=64, blank=True, default="")
    redis_password_hash = models.CharField(max_length=64, blank=True, default="")
    spare_password_hashes = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    metrics_token_sealed = models.TextField(blank=True, default="")
    version = models.CharField(max_length=64, blank=True, default="")
    boot_id = models.CharField(max_length=64, blank=True, default="")
    facts = models.JSONField(default=dict)
    enrolled_at = models.DateTimeField(null=True, blank=True)
    hello_at = models.DateTimeField(null=True, blank=True)

    objects = AgentQuerySet.as_manager()  # type: ignore[misc]

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="agent_created")]
        constraints = [models.UniqueConstraint(fields=["address"], name="agent_address_once")]


class HostState(models.TextChoices):
    NEW = "new", _("New")
    READY = "ready", _("Ready")


class HostQuerySet(ResourceQuerySet):
    def taking_work(self) -> Self:
        """Hosts that new work may land on: enrolled, enabled up to their zone, and connected."""
        return self.filter(
            state=HostState.READY,
            activity="",
            availability=Availability.ENABLED,
            connection=Connection.CONNECTED,
            cluster__availability=Availability.ENABLED,
            cluster__zone__availability=Availability.ENABLED,
        )


class Host(Resource, Stateful, Available, Connected):
    """A machine that gives instances CPU, memory, network and storage. Hardware fields are what its agent reported."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="hosts")
    agent = models.OneToOneField(Agent, null=True, blank=True, on_delete=models.PROTECT, related_name="host")
    address = models.CharField(max_length=255)
    hostname = models.CharField(max_length=255, blank=True, default="")
    os_name = models.CharField(max_length=128, blank=True, default="")
    kernel = models.CharField(max_length=128, blank=True, default="")
    hypervisor_version = models.CharField(max_length=64, blank=True, default="")
    cpu_model = models.CharField(max_length=255, blank=True, default="")
    cpu_threads = models.PositiveIntegerField(default=0)
    memory_bytes = models.BigIntegerField(default=0)
    is_kvm_usable = models.BooleanField(null=True)

    objects = HostQuerySet.as_manager()  # type: ignore[misc]

    class Meta(Resource.Meta):
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="host_created"),
            models.Index(fields=["cluster", "availability", "connection"], name="host_taking_work"),
        ]
        constraints = [models.UniqueConstraint(fields=["address"], name="host_address_once")]


class HostCapacity(models.Model):
    """What a host has and what is promised of it; changed by conditional updates only (`services.capacity`).

    The totals are physical: over-provisioning ratios and reserved memory are applied where it is taken.
    """

    host = models.OneToOneField(Host, primary_key=True, on_delete=models.CASCADE, related_name="capacity")
    cpu_total = models.IntegerField(default=0)
    cpu_used = models.IntegerField(default=0)
    memory_total_bytes = models.BigIntegerField(default=0)
    memory_used_bytes = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cpu_used__gte=0) & Q(memory_used_bytes__gte=0), name="host_capacity_not_negative"
            )
        ]


class DesiredSectionQuerySet(models.QuerySet["DesiredSection"]):
    def behind(self) -> Self:
        return self.filter(held__lt=F("wanted"))


class DesiredSection(models.Model):
    """One numbered section of the state a machine should have: the number wanted and the number it holds.

    The content is computed when it is sent. `failure` is why the machine could not converge: {nature, code, detail}.
    `failures` are parts of the number held that fail alone, as {part: {nature, code, detail}}; `told_at` is when the
    machine last spoke of the section, in seconds by Redis' clock.
    """

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="sections")
    section = models.CharField(max_length=32)
    wanted = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    failure = models.JSONField(null=True)
    failures = models.JSONField(default=dict)
    told_at = models.FloatField(default=0)
    sent_at = models.DateTimeField(null=True)

    objects = DesiredSectionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "section"], name="desired_section_once")]
        indexes = [
            models.Index(fields=["agent", "section"], name="desired_section_behind", condition=Q(held__lt=F("wanted")))
        ]
