"""What the API shows of storage, and what it takes."""

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer, Reference, RenameInput, ResourceSerializer, SummarySerializer
from cloud.infra.api.agent_state import AgentStateSerializer
from cloud.infra.models import Cluster, Zone
from storage.models import (
    BackupStorage,
    DiskOffering,
    Image,
    ImageFormat,
    Media,
    PrimaryStorage,
    StorageCapacity,
    StorageKind,
    Volume,
)
from storage.models.image import Platform
from storage.models.volume import LIMITS

LARGEST = 2**53 - 1  # what JSON readers hold exactly


class HostCapacitySerializer(serializers.ModelSerializer[StorageCapacity]):
    """A storage's bytes on one host: as the host sees them, and what is promised (`used_bytes`)."""

    host = SummarySerializer(read_only=True)

    class Meta:
        model = StorageCapacity
        fields = ["host", "total_bytes", "available_bytes", "held_bytes", "used_bytes", "failure", "reported_at"]
        read_only_fields = fields


class PrimaryStorageSerializer(ResourceSerializer):
    """The bytes are sums over the hosts; `used_bytes` is what is promised to volumes and cached images."""

    zone = SummarySerializer(read_only=True)
    clusters = SummarySerializer(many=True, read_only=True)
    total_bytes = serializers.IntegerField(read_only=True)
    available_bytes = serializers.IntegerField(read_only=True)
    used_bytes = serializers.IntegerField(read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = PrimaryStorage
        fields = [
            *ResourceSerializer.Meta.fields,
            "kind",
            "zone",
            "clusters",
            "path",
            "state",
            "state_reason",
            "activity",
            "availability",
            "connection",
            "total_bytes",
            "available_bytes",
            "used_bytes",
        ]


class PrimaryStorageDetailSerializer(PrimaryStorageSerializer):
    hosts = HostCapacitySerializer(source="capacities", many=True, read_only=True)

    class Meta(PrimaryStorageSerializer.Meta):
        fields = [*PrimaryStorageSerializer.Meta.fields, "hosts"]


class PrimaryStorageInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    kind = serializers.ChoiceField(choices=StorageKind.choices, default=StorageKind.LOCAL)
    zone = Reference(Zone)
    path = serializers.CharField(max_length=1024, help_text=_("A directory for nothing else, as /srv/primary."))
    clusters = Reference(Cluster, many=True, required=False)


class StorageClusterInput(InputSerializer):
    cluster = Reference(Cluster)


class SshInput(InputSerializer):
    """How to sign in to a machine; the secret is forgotten when its job ends."""

    ssh_port = serializers.IntegerField(min_value=1, max_value=65535, required=False)
    ssh_user = serializers.CharField(max_length=64, required=False)
    ssh_password = serializers.CharField(max_length=1024, required=False, write_only=True, trim_whitespace=False)
    ssh_private_key = serializers.CharField(max_length=32768, required=False, write_only=True, trim_whitespace=False)
    host_key_fingerprint = serializers.CharField(max_length=128, required=False)


class BackupStorageInput(SshInput):
    name = serializers.CharField(max_length=255, required=False)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    address = serializers.CharField(max_length=255)
    path = serializers.CharField(max_length=1024, help_text=_("A directory for nothing else, as /srv/images."))


class BackupStorageSerializer(AgentStateSerializer, ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = BackupStorage
        fields = [
            *ResourceSerializer.Meta.fields,
            "kind",
            "address",
            "path",
            "state",
            "state_reason",
            "activity",
            "availability",
            "connection",
            "total_bytes",
            "available_bytes",
            "failure",
            "reported_at",
            *AgentStateSerializer.AGENT_STATE,
        ]


class ImageSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Image
        fields = [
            *ResourceSerializer.Meta.fields,
            "media",
            "format",
            "platform",
            "has_guest_agent",
            "size_bytes",
            "actual_size_bytes",
            "state",
            "state_reason",
            "activity",
            "backup_storage",
            "deleted_at",
        ]


class ImageDetailSerializer(ImageSerializer):
    source_url = serializers.CharField(source="url", read_only=True)

    class Meta(ImageSerializer.Meta):
        fields = [*ImageSerializer.Meta.fields, "source_url", "checksum", "content_sha256"]


class ImageInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    url = serializers.CharField(max_length=2048, help_text=_("Where to fetch it from: http:// or https://"))
    media = serializers.ChoiceField(choices=Media.choices, default=Media.ROOT_TEMPLATE)
    format = serializers.ChoiceField(choices=ImageFormat.choices, required=False)
    checksum = serializers.CharField(max_length=80, required=False, help_text=_("sha256:… or md5:… in hex"))
    platform = serializers.ChoiceField(choices=Platform.choices, default=Platform.LINUX)
    has_guest_agent = serializers.BooleanField(default=False)
    backup_storage = Reference(BackupStorage, required=False)


class ImageChange(RenameInput):
    platform = serializers.ChoiceField(choices=Platform.choices, required=False)
    has_guest_agent = serializers.BooleanField(required=False)


class DiskOfferingSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = DiskOffering
        fields = [
            *ResourceSerializer.Meta.fields,
            "size_bytes",
            "read_iops",
            "write_iops",
            "read_bytes_per_s",
            "write_bytes_per_s",
            "availability",
        ]


class DiskOfferingInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    size_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST)
    read_iops = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False, allow_null=True)
    write_iops = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False, allow_null=True)
    read_bytes_per_s = serializers.IntegerField(min_value=1, max_value=LARGEST, required=False, allow_null=True)
    write_bytes_per_s = serializers.IntegerField(min_value=1, max_value=LARGEST, required=False, allow_null=True)


class VolumeSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Volume
        fields = [
            *ResourceSerializer.Meta.fields,
            "kind",
            "size_bytes",
            "format",
            "state",
            "state_reason",
            "activity",
            "primary_storage",
            "host",
            "image",
            "disk_offering",
            "instance_uuid",
            "device_index",
            "is_shareable",
            *LIMITS,
            "deleted_at",
        ]
