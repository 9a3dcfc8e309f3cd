from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common.api.acts import LOCATION, accepted, act, creates, deletes, job_action, updates
from cloud.common.api.serializers import AcceptedSerializer
from cloud.common.api.viewsets import ResourceViewSet
from cloud.infra.api import serializers
from cloud.infra.api.filters import HostFilterSet
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.services import agents, clusters, hosts, zones


class ZoneViewSet(ResourceViewSet):
    """The largest units: they hold clusters, layer-2 networks and primary storages."""

    queryset = Zone.objects.all()
    serializer_class = serializers.ZoneSerializer
    create = creates(zones.create, serializers.ZoneInput)
    partial_update = updates(zones.update)
    destroy = deletes(zones.delete, needs_preview=True)
    enable = act(zones.enable)
    disable = act(zones.disable)


class ClusterViewSet(ResourceViewSet):
    """Groups of alike hosts."""

    queryset = Cluster.objects.select_related("zone")
    serializer_class = serializers.ClusterSerializer
    create = creates(clusters.create, serializers.ClusterInput)
    partial_update = updates(clusters.update)
    destroy = deletes(clusters.delete, needs_preview=True)
    enable = act(clusters.enable)
    disable = act(clusters.disable)


class HostViewSet(ResourceViewSet):
    """Machines that give instances CPU, memory, network and storage."""

    queryset = Host.objects.select_related("cluster__zone", "agent", "capacity")
    serializer_class = serializers.HostDetailSerializer
    list_serializer_class = serializers.HostSerializer
    filterset_class = HostFilterSet
    search_fields = ("name", "address", "hostname")
    act_permissions = {"create": "host.add", "upgrade_agent": "agent.upgrade"}
    create = creates(hosts.add, serializers.HostInput, is_job=True)
    partial_update = updates(hosts.update)
    destroy = deletes(hosts.delete, is_job=True, needs_preview=True)
    enable = act(hosts.enable)
    disable = act(hosts.disable)
    reconnect = job_action(hosts.reconnect, serializers.CredentialsInput)
    upgrade_agent = job_action(agents.upgrade_of)
    settle_state = act(hosts.settle_state)


class AgentViewSet(ResourceViewSet):
    """The agents on machines: hosts, image servers."""

    act_permissions = {"upgrade_all": "agent.upgrade"}
    queryset = Agent.objects.all()
    serializer_class = serializers.AgentDetailSerializer
    list_serializer_class = serializers.AgentSerializer
    search_fields = ("name", "address")
    upgrade = job_action(agents.upgrade)
    revoke = job_action(agents.revoke)

    @extend_schema(
        request=None,
        parameters=[LOCATION],
        responses={202: AcceptedSerializer},
        summary="Upgrade all connected agents, a few at a time; stop at the first that does not come back",
    )
    @action(detail=False, methods=["post"], url_path="upgrade-all", url_name="upgrade-all")
    def upgrade_all(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        self.admit("upgrade_all")
        return accepted([], agents.upgrade_all(actor=request.actor))
