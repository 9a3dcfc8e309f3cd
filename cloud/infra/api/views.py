from cloud.common.api.acts import act, creates, deletes, job_action, updates
from cloud.common.api.viewsets import ResourceViewSet
from cloud.infra.api import serializers
from cloud.infra.api.filters import HostFilterSet
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.services import clusters, hosts, zones


class ZoneViewSet(ResourceViewSet):
    """The largest units: they hold clusters, layer-2 networks and primary storages."""

    queryset = Zone.objects.all()
    serializer_class = serializers.ZoneSerializer
    filterset_fields = ("availability",)
    create = creates(zones.create, serializers.ZoneInput)
    partial_update = updates(zones.update)
    destroy = deletes(zones.delete)
    enable = act(zones.enable)
    disable = act(zones.disable)


class ClusterViewSet(ResourceViewSet):
    """Groups of alike hosts."""

    queryset = Cluster.objects.select_related("zone")
    serializer_class = serializers.ClusterSerializer
    filterset_fields = ("zone", "hypervisor", "availability")
    create = creates(clusters.create, serializers.ClusterInput)
    partial_update = updates(clusters.update)
    destroy = deletes(clusters.delete)
    enable = act(clusters.enable)
    disable = act(clusters.disable)


class HostViewSet(ResourceViewSet):
    """Machines that give instances CPU, memory, network and storage."""

    queryset = Host.objects.select_related("cluster__zone", "agent", "capacity")
    serializer_class = serializers.HostDetailSerializer
    list_serializer_class = serializers.HostSerializer
    filterset_class = HostFilterSet
    search_fields = ("name", "address", "hostname")
    act_permissions = {"create": "host.add"}
    create = creates(hosts.add, serializers.HostInput, is_job=True)
    partial_update = updates(hosts.update)
    destroy = deletes(hosts.delete, is_job=True)
    enable = act(hosts.enable)
    disable = act(hosts.disable)
    reconnect = job_action(hosts.reconnect, serializers.CredentialsInput)


class AgentViewSet(ResourceViewSet):
    """The agents on machines: hosts, image servers."""

    queryset = Agent.objects.all()
    serializer_class = serializers.AgentDetailSerializer
    list_serializer_class = serializers.AgentSerializer
    filterset_fields = ("kind", "connection")
    search_fields = ("name", "address")
