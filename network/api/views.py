"""The API of networks."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common.api.acts import act, creates, deletes, updates
from cloud.common.api.viewsets import ResourceViewSet
from network.api.serializers import (
    AddressReportSerializer,
    CheckQuery,
    IpAddressSerializer,
    IpRangeInput,
    IpRangeSerializer,
    L2NetworkInput,
    L2NetworkSerializer,
    L3NetworkChange,
    L3NetworkInput,
    L3NetworkSerializer,
    NamedCluster,
    NicSerializer,
    ReleaseInput,
    ReserveInput,
    VniRangeInput,
)
from network.models import IpAddress, IpRange, L2Network, L3Network, Nic
from network.services import addresses, check, l2, l3, ranges


class L2NetworkViewSet(ResourceViewSet):
    queryset = L2Network.objects.prefetch_related("clusters", "vni_ranges")
    serializer_class = L2NetworkSerializer
    more_filters = ("clusters",)
    act_permissions = {"add_vni_range": "l2_network.update"}
    create = creates(l2.create, L2NetworkInput)
    partial_update = updates(l2.update)
    destroy = deletes(l2.delete, needs_preview=True)
    attach = act(l2.attach, NamedCluster)
    detach = act(l2.detach, NamedCluster)
    add_vni_range = act(l2.add_vni_range, VniRangeInput)


class L3NetworkViewSet(ResourceViewSet):
    queryset = L3Network.objects.all()
    serializer_class = L3NetworkSerializer
    search_fields = ("name", "domain")
    act_permissions = {"reserve_addresses": "ip_address.reserve", "release_addresses": "ip_address.release"}
    create = creates(l3.create, L3NetworkInput)
    partial_update = updates(l3.update, L3NetworkChange)
    destroy = deletes(l3.delete, needs_preview=True)
    reserve_addresses = act(addresses.reserve, ReserveInput)
    release_addresses = act(addresses.release, ReleaseInput)

    @extend_schema(parameters=[CheckQuery], responses=AddressReportSerializer)
    @action(detail=True, url_path="check-address", filter_backends=[], pagination_class=None)
    def check_address(self, request: Any, uuid: str) -> Response:
        """Look whether an address is in range, free, reserved, used, or answering on the wire."""
        l3 = self.get_object()
        query = CheckQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        found = query.validated_data
        report = check.address(l3, found["ip"], actor=self.actor, is_probed=found["probe"])
        return Response(AddressReportSerializer(report).data)


class IpRangeViewSet(ResourceViewSet):
    queryset = IpRange.objects.all()
    serializer_class = IpRangeSerializer
    search_fields = ("name", "start", "end")
    create = creates(ranges.add, IpRangeInput)
    partial_update = updates(ranges.update)
    destroy = deletes(ranges.delete)


class IpAddressViewSet(ResourceViewSet):
    queryset = IpAddress.objects.all()
    serializer_class = IpAddressSerializer
    search_fields = ("name", "address")


class NicViewSet(ResourceViewSet):
    queryset = Nic.objects.all()
    serializer_class = NicSerializer
    search_fields = ("instance_name", "mac", "address")
