from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer, Reference, ResourceSerializer, SummarySerializer
from cloud.infra.models import Cluster, Host, Zone
from compute.models import Instance, InstanceOffering, UnknownDomain
from compute.services.creation import MOST_AT_ONCE
from network.models import L3Network, Nic
from storage.models import DiskOffering, Image, PrimaryStorage, Volume

SMALLEST_MEMORY = 64 * 1024 * 1024
LARGEST_MEMORY = 64 * 1024**4
MOST_CPUS = 512
LARGEST_VOLUME = 1024**5


class InstanceOfferingSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = InstanceOffering
        fields = [*ResourceSerializer.Meta.fields, "cpu", "memory_bytes", "availability"]


class OfferingInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    cpu = serializers.IntegerField(min_value=1, max_value=MOST_CPUS)
    memory_bytes = serializers.IntegerField(min_value=SMALLEST_MEMORY, max_value=LARGEST_MEMORY)


class NicSummarySerializer(serializers.ModelSerializer[Nic]):
    l3_network = serializers.UUIDField(source="l3_id", read_only=True)

    class Meta:
        model = Nic
        fields = ["uuid", "device_index", "mac", "address", "l3_network"]
        read_only_fields = fields


class VolumeSummarySerializer(serializers.ModelSerializer[Volume]):
    class Meta:
        model = Volume
        fields = ["uuid", "name", "kind", "size_bytes", "device_index", "state", "primary_storage"]
        read_only_fields = fields


class InstanceSerializer(ResourceSerializer):
    """An instance in a list."""

    host = SummarySerializer(read_only=True, allow_null=True)
    addresses = serializers.SerializerMethodField()
    state_reason = serializers.SerializerMethodField(help_text="Why it is in this state, when that needs a word.")

    class Meta(ResourceSerializer.Meta):
        model = Instance
        fields = [
            *ResourceSerializer.Meta.fields,
            "state",
            "activity",
            "state_reason",
            "zone",
            "cluster",
            "host",
            "image",
            "instance_offering",
            "cpu",
            "memory_bytes",
            "hostname",
            "addresses",
            "destroyed_at",
        ]

    def get_state_reason(self, instance: Instance) -> str:
        # Kept in English where it is our own word, read in the reader's language.
        return gettext(instance.state_reason) if instance.state_reason else ""

    @extend_schema_field({"type": "array", "items": {"type": "string", "format": "ipv4"}})
    def get_addresses(self, instance: Instance) -> list[str]:
        return [str(address) for address in getattr(instance, "nic_addresses", []) or []]


class InstanceDetailSerializer(InstanceSerializer):
    nics = serializers.SerializerMethodField()
    volumes = serializers.SerializerMethodField()

    class Meta(InstanceSerializer.Meta):
        fields = [*InstanceSerializer.Meta.fields, "last_host", "ssh_keys", "nics", "volumes"]

    @extend_schema_field(NicSummarySerializer(many=True))
    def get_nics(self, instance: Instance) -> Any:
        return NicSummarySerializer(
            Nic.objects.filter(instance_uuid=instance.pk).order_by("device_index"), many=True
        ).data

    @extend_schema_field(VolumeSummarySerializer(many=True))
    def get_volumes(self, instance: Instance) -> Any:
        attached = Volume.objects.filter(instance_uuid=instance.pk).order_by("device_index")
        return VolumeSummarySerializer(attached, many=True).data


class NicInput(InputSerializer):
    l3_network = Reference(L3Network.objects.select_related("l2__pool"))
    ip = serializers.IPAddressField(required=False, allow_null=True, default=None)


class VolumeInput(InputSerializer):
    size_bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_VOLUME, required=False)
    disk_offering = Reference(DiskOffering.objects.filter(availability="enabled"), required=False)
    primary_storage = Reference(PrimaryStorage, required=False)


class InstanceInput(InputSerializer):
    """`{n}` in the name becomes each instance's number when `count` is above 1."""

    name = serializers.CharField(max_length=200)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    count = serializers.IntegerField(min_value=1, max_value=MOST_AT_ONCE, default=1)
    image = Reference(Image)
    instance_offering = Reference(InstanceOffering.objects.filter(availability="enabled"), required=False)
    cpu = serializers.IntegerField(min_value=1, max_value=MOST_CPUS, required=False)
    memory_bytes = serializers.IntegerField(min_value=SMALLEST_MEMORY, max_value=LARGEST_MEMORY, required=False)
    nics = serializers.ListField(child=NicInput(), max_length=8)
    root_volume = VolumeInput(required=False)
    data_volumes = serializers.ListField(child=VolumeInput(), max_length=23, required=False)
    ssh_keys = serializers.ListField(child=serializers.CharField(max_length=16384), max_length=32, required=False)
    user_data = serializers.CharField(max_length=65536, allow_blank=True, trim_whitespace=False, required=False)
    zone = Reference(Zone, required=False)
    cluster = Reference(Cluster, required=False)
    host = Reference(Host, required=False)
    strategy = serializers.ChoiceField(["start", "create_only"], default="start")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        sizes = {"cpu", "memory_bytes"} & attrs.keys()
        if "instance_offering" in attrs and sizes:
            raise serializers.ValidationError(
                {name: [_("Leave it out: the offering says it.")] for name in sorted(sizes)}
            )
        if "instance_offering" not in attrs and len(sizes) < 2:
            raise serializers.ValidationError(
                {"instance_offering": [_("Choose an offering, or give both cpu and memory_bytes.")]}
            )
        for index, volume in enumerate(attrs.get("data_volumes", [])):
            if not {"size_bytes", "disk_offering"} & volume.keys():
                reason = [_("Give a size or a disk offering.")]
                raise serializers.ValidationError({f"data_volumes.{index}.size_bytes": reason})
        if "ssh_keys" in attrs:
            attrs["ssh_keys"] = [_public_key(key) for key in attrs["ssh_keys"]]
        return attrs


KEY_TYPES = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


def _public_key(text: str) -> str:
    line = text.strip()
    if "\n" in line or "\r" in line or not line.startswith(KEY_TYPES) or len(line.split()) < 2:
        raise serializers.ValidationError(
            {"ssh_keys": [_("Give public keys in OpenSSH's one-line form, as in id_ed25519.pub.")]}
        )
    return line


class PowerInput(InputSerializer):
    is_forced = serializers.BooleanField(default=False, help_text="At once, without asking the guest.")


class ConsoleInput(InputSerializer):
    kind = serializers.ChoiceField(["vnc", "serial"], default="vnc")


class TunnelInput(InputSerializer):
    port = serializers.IntegerField(min_value=1, max_value=65535)
    ip = serializers.IPAddressField(
        required=False, help_text="One of the instance's addresses; default: the first NIC's."
    )


class TicketSerializer(serializers.Serializer[Any]):
    """Open a websocket at `path` within `ttl_s` seconds, once; it carries raw bytes."""

    ticket = serializers.CharField()
    path = serializers.CharField()
    ttl_s = serializers.IntegerField()


class GuestSerializer(serializers.Serializer[Any]):
    """What the guest's agent says of the guest."""

    agent_answers = serializers.BooleanField()
    hostname = serializers.CharField(allow_blank=True)
    addresses = serializers.ListField(child=serializers.CharField())
    os = serializers.CharField(allow_blank=True)


class UnknownDomainSerializer(ResourceSerializer):
    host = SummarySerializer(read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = UnknownDomain
        fields = [*ResourceSerializer.Meta.fields, "host", "domain_uuid", "state", "is_ours"]
