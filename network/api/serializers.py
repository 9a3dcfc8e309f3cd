"""What networks show of themselves, and what their acts take."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer, Reference, RenameInput, ResourceSerializer
from cloud.infra.models import Cluster, Zone
from network.models import IpAddress, IpRange, L2Kind, L2Network, L3Kind, L3Network, Nic, VniRange
from network.models.l2 import MTU_MAX, MTU_MIN, VLAN_ID_MAX, VNI_MAX


class VniRangeSerializer(serializers.ModelSerializer[VniRange]):
    class Meta:
        model = VniRange
        fields = ["start", "end"]


class L2NetworkSerializer(ResourceSerializer):
    """An L2 network; `clusters` are the uuids of those it is attached to."""

    clusters = serializers.PrimaryKeyRelatedField[Any](many=True, read_only=True)
    vni_ranges = VniRangeSerializer(many=True, read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = L2Network
        fields = [
            *ResourceSerializer.Meta.fields,
            "zone",
            "kind",
            "physical_interface",
            "vlan_id",
            "pool",
            "vni",
            "vtep_cidr",
            "vni_ranges",
            "mtu",
            "clusters",
        ]


class L3NetworkSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = L3Network
        fields = [*ResourceSerializer.Meta.fields, "l2", "kind", "ip_version", "domain", "dns", "routes", "mtu"]


class IpRangeSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = IpRange
        fields = [*ResourceSerializer.Meta.fields, "l3", "start", "end", "prefix", "gateway"]


class IpAddressSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = IpAddress
        fields = [*ResourceSerializer.Meta.fields, "l3", "address", "purpose", "holder"]


class NicSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Nic
        fields = [
            *ResourceSerializer.Meta.fields,
            "l3",
            "instance_uuid",
            "instance_name",
            "device_index",
            "mac",
            "address",
            "host",
        ]


class AddressReportSerializer(serializers.Serializer[Any]):
    """What is known of an address."""

    ip = serializers.CharField()
    is_in_range = serializers.BooleanField()
    is_reserved = serializers.BooleanField()
    is_available = serializers.BooleanField(help_text="It can be chosen.")
    used_by = serializers.DictField(allow_null=True, help_text="{purpose, uuid, name} of who has it.")
    is_answering = serializers.BooleanField(allow_null=True, help_text="Null when no host could be asked.")
    macs = serializers.ListField(child=serializers.CharField(), help_text="Who answers on the wire.")
    reason = serializers.CharField()
    next_free = serializers.CharField(allow_null=True, help_text="The address that would be given out next.")


class VniRangeInput(InputSerializer):
    start = serializers.IntegerField(min_value=1, max_value=VNI_MAX)
    end = serializers.IntegerField(min_value=1, max_value=VNI_MAX)


class L2NetworkInput(InputSerializer):
    """Which fields apply depends on `kind`."""

    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    zone = Reference(Zone)
    kind = serializers.ChoiceField(choices=L2Kind.choices)
    physical_interface = serializers.CharField(max_length=15, allow_blank=True, required=False)
    vlan_id = serializers.IntegerField(min_value=1, max_value=VLAN_ID_MAX, allow_null=True, required=False)
    pool = Reference(L2Network, allow_null=True, required=False)
    vni = serializers.IntegerField(min_value=1, max_value=VNI_MAX, allow_null=True, required=False)
    vtep_cidr = serializers.CharField(max_length=43, allow_blank=True, required=False)
    vni_ranges = VniRangeInput(many=True, required=False)
    mtu = serializers.IntegerField(min_value=MTU_MIN, max_value=MTU_MAX, allow_null=True, required=False)
    clusters = Reference(Cluster, many=True, required=False)


class NamedCluster(InputSerializer):
    cluster = Reference(Cluster)


class RouteInput(InputSerializer):
    destination = serializers.CharField(max_length=18, help_text="A network, as 10.1.0.0/16.")
    via = serializers.CharField(max_length=15)


class RangeFields(InputSerializer):
    """A network, or its two ends with prefix or netmask; gateway "" stands for none."""

    name = serializers.CharField(max_length=255, required=False)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    cidr = serializers.CharField(max_length=18, required=False)
    start = serializers.CharField(max_length=15, required=False)
    end = serializers.CharField(max_length=15, required=False)
    prefix = serializers.IntegerField(min_value=8, max_value=30, required=False)
    netmask = serializers.CharField(max_length=15, required=False)
    gateway = serializers.CharField(max_length=15, allow_blank=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.get("cidr") and not (attrs.get("start") and attrs.get("end")):
            raise serializers.ValidationError({"cidr": [_("Give a network, or start and end.")]}, code="required")
        return attrs


class IpRangeInput(RangeFields):
    l3 = Reference(L3Network)


class L3NetworkChange(RenameInput):
    domain = serializers.CharField(max_length=253, allow_blank=True, required=False)
    dns = serializers.ListField(child=serializers.CharField(max_length=15), max_length=4, required=False)
    routes = RouteInput(many=True, required=False)
    mtu = serializers.IntegerField(min_value=MTU_MIN, max_value=MTU_MAX, required=False)


class L3NetworkInput(L3NetworkChange):
    name = serializers.CharField(max_length=255)
    l2 = Reference(L2Network)
    kind = serializers.ChoiceField(choices=L3Kind.choices, required=False)
    ip_version = serializers.ChoiceField(choices=[4], required=False)
    ranges = RangeFields(many=True, required=False)


class ReserveInput(InputSerializer):
    start = serializers.CharField(max_length=15)
    end = serializers.CharField(max_length=15, required=False)
    note = serializers.CharField(max_length=255, required=False)


class ReleaseInput(InputSerializer):
    start = serializers.CharField(max_length=15)
    end = serializers.CharField(max_length=15, required=False)


class CheckQuery(InputSerializer):
    """What the address check reads from the query."""

    is_json = False

    ip = serializers.CharField(max_length=15)
    probe = serializers.BooleanField(required=False, default=True)
