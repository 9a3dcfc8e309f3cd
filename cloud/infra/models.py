"""Where the cloud stands: zones, clusters, hosts, the agents on machines and the state that machines should have."""

import uuid
from typing import Any, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import BigIntegerField, F, FloatField, Q, Value
from django.db.models.functions import Cast, Floor, Greatest, Least, Now
from django.utils.translation import gettext_lazy as _

from cloud.agent.version import PROTOCOL
from cloud.common.models import Availability, Available, Connected, Connection, Resource, ResourceQuerySet, Stateful
from cloud.jobs import circuit


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
    `public_key` (PEM) is that of its certificate: secrets in messages are sealed to it; empty while it is not known.
    """

    kind = models.CharField(max_length=16, choices=AgentKind)
    address = models.CharField(max_length=255)
    ssh_port = models.PositiveIntegerField(default=22)
    ssh_user = models.CharField(max_length=64, default="root")
    host_key_type = models.CharField(max_length=64, blank=True, default="")
    host_key_fingerprint = models.CharField(max_length=128, blank=True, default="")
    certificate = models.TextField(blank=True, default="")
    certificate_serial = models.CharField(max_length=64, blank=True, default="")
    public_key = models.TextField(blank=True, default="", db_default="")
    certificate_expires_at = models.DateTimeField(null=True, blank=True)
    redis_password_hash = models.CharField(max_length=64, blank=True, default="")
    spare_password_hashes = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    metrics_token_sealed = models.TextField(blank=True, default="")
    version = models.CharField(max_length=64, blank=True, default="")
    # What it speaks, and by how much its clock is ahead of Redis' (cloud.agent.version, cloud.agent.link).
    protocol = models.PositiveSmallIntegerField(default=1)
    clock_skew_s = models.FloatField(null=True, blank=True)
    boot_id = models.CharField(max_length=64, blank=True, default="")
    facts = models.JSONField(default=dict)
    enrolled_at = models.DateTimeField(null=True, blank=True)
    hello_at = models.DateTimeField(null=True, blank=True)

    objects = AgentQuerySet.as_manager()  # type: ignore[misc]

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="agent_created")]
        constraints = [models.UniqueConstraint(fields=["address"], name="agent_address_once")]


class CertificateQuerySet(models.QuerySet["Certificate"]):
    def revoked(self) -> Self:
        """Those that machines must refuse: no longer good here, and not past their own end yet."""
        return self.filter(revoked_at__isnull=False, expires_at__gt=Now())


class Certificate(models.Model):
    """A certificate that was signed for an agent. It outlives the agent: whoever still has it must be refused.

    `serial` is hexadecimal text without leading zeros, in lower case; `is_told` that machines were told to refuse it.
    """

    serial = models.CharField(max_length=64, unique=True)
    agent_uuid = models.UUIDField(db_index=True)
    agent_name = models.CharField(max_length=255)
    issued_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    is_told = models.BooleanField(default=False)

    objects = CertificateQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["expires_at"], name="certificate_revoked", condition=Q(revoked_at__isnull=False))
        ]

    def __str__(self) -> str:
        return f"{self.agent_name} {self.serial}"


class HostState(models.TextChoices):
    NEW = "new", _("New")
    READY = "ready", _("Ready")


class HostQuerySet(ResourceQuerySet):
    def taking_work(self) -> Self:
        """Hosts that new work may land on: enrolled, enabled up to their zone, connected, understood, and answering."""
        return self.filter(
            ~Q(agent__in=list(circuit.opened())),
            agent__protocol__range=(PROTOCOL - 1, PROTOCOL + 1),
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


LARGEST = Value(2.0**62, FloatField())  # no limit is more than a column holds


def whole(number: Any) -> Cast:
    """A number of a database expression, rounded down and kept within a column's reach."""
    return Cast(Least(Floor(number), LARGEST), BigIntegerField())


class HostCapacity(models.Model):
    """What a host has, what of it may be promised, and what is; changed by conditional updates only
    (`services.capacity`).

    The totals are physical. The ratios and the reserve are the settings that hold for the host, written down when they
    change; the database computes the limits from them, so that a limit is never older than what it is made of.
    """

    host = models.OneToOneField(Host, primary_key=True, on_delete=models.CASCADE, related_name="capacity")
    cpu_total = models.IntegerField(default=0)
    cpu_used = models.IntegerField(default=0)
    memory_total_bytes = models.BigIntegerField(default=0)
    memory_used_bytes = models.BigIntegerField(default=0)
    cpu_ratio = models.FloatField(default=10.0)
    memory_ratio = models.FloatField(default=1.0)
    reserved_memory_bytes = models.BigIntegerField(default=1024**3)
    cpu_limit = models.GeneratedField(
        expression=whole(Cast(F("cpu_total"), FloatField()) * F("cpu_ratio")),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    memory_limit_bytes = models.GeneratedField(
        expression=whole(
            Cast(Greatest(F("memory_total_bytes") - F("reserved_memory_bytes"), Value(0)), FloatField())
            * F("memory_ratio")
        ),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )

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
    machine last spoke of the section, in seconds by Redis' clock. While it is behind, `behind_since` says since when.
    """

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="sections")
    section = models.CharField(max_length=32)
    wanted = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    failure = models.JSONField(null=True)
    failures = models.JSONField(default=dict)
    told_at = models.FloatField(default=0)
    sent_at = models.DateTimeField(null=True)
    behind_since = models.DateTimeField(null=True)

    objects = DesiredSectionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "section"], name="desired_section_once")]
        indexes = [
            models.Index(fields=["agent", "section"], name="desired_section_behind", condition=Q(held__lt=F("wanted")))
        ]


class QuarantinedThing(models.Model):
    """Something that the doctor took out of the way: a file or domain in its machine's quarantine, rows, or both.

    `keeper` is who keeps it on the machine (empty for rows alone) and `thing` what the keeper must know; `rows` are
    the rows that went with it, as Django serialises them. It is purged when its time is over.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=64)
    agent = models.ForeignKey(Agent, null=True, on_delete=models.CASCADE, related_name="quarantined")
    keeper = models.CharField(max_length=64, blank=True, default="")
    resource_type = models.CharField(max_length=64)
    resource_uuid = models.CharField(max_length=64, blank=True, default="")
    name = models.CharField(max_length=255)
    thing = models.JSONField(default=dict)
    rows = models.JSONField(default=list)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["created_at", "uuid"]
        indexes = [models.Index(fields=["created_at", "uuid"], name="quarantined_created")]
