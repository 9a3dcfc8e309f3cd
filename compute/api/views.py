from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.response import Response

from cloud.common.api.acts import act, creates, deletes, job_action, updates
from cloud.common.api.viewsets import ResourceViewSet
from cloud.common.relations import LOST, RECYCLED
from cloud.jobs import agents
from compute.api import wishes
from compute.api.serializers import (
    ConsoleInput,
    GuestSerializer,
    InstanceDetailSerializer,
    InstanceInput,
    InstanceOfferingSerializer,
    InstanceSerializer,
    OfferingInput,
    PowerInput,
    TicketSerializer,
    TunnelInput,
    UnknownDomainSerializer,
)
from compute.messages import GuestReport
from compute.models import Instance, InstanceOffering, UnknownDomain
from compute.services import doors, instances, offerings, settling
from network.models import Nic

ADDRESSES = ArraySubquery(Nic.objects.filter(instance_uuid=OuterRef("pk")).order_by("device_index").values("address"))


class InstanceViewSet(ResourceViewSet):
    """Virtual machines. Deleting one puts it into the recycle bin."""

    queryset = Instance.objects.select_related("host").annotate(nic_addresses=ADDRESSES)
    serializer_class = InstanceDetailSerializer
    list_serializer_class = InstanceSerializer
    not_listed = ("user_data", "user_data_sealed", "ssh_keys", "search_text")
    search_fields = ("name",)
    act_permissions = {"delete": "instance.destroy"}
    other_acts = {"console": doors.console, "tunnel": doors.tunnel}
    create = creates(wishes.create, InstanceInput, is_job=True)
    partial_update = updates(instances.update)
    destroy = deletes(instances.destroy, is_job=True, effect=RECYCLED)
    start = job_action(instances.start)
    stop = job_action(instances.stop, PowerInput)
    reboot = job_action(instances.reboot, PowerInput)
    recover = job_action(instances.recover)
    expunge = job_action(instances.expunge, effect=LOST)
    settle_state = act(settling.settle_state)

    @extend_schema(request=ConsoleInput, responses=TicketSerializer, summary="A ticket for the instance's console.")
    @action(detail=True, methods=["post"])
    def console(self, request: Any, uuid: str) -> Response:
        return self._ticket(doors.console, ConsoleInput)

    @extend_schema(request=TunnelInput, responses=TicketSerializer, summary="A ticket for one TCP connection into it.")
    @action(detail=True, methods=["post"])
    def tunnel(self, request: Any, uuid: str) -> Response:
        return self._ticket(doors.tunnel, TunnelInput)

    def _ticket(self, door: Any, takes: Any) -> Response:
        instance = self.get_object()
        self.admit(self.action)
        asked = takes(data=self.request.data, context=self.get_serializer_context())
        asked.is_valid(raise_exception=True)
        return Response(TicketSerializer(door(instance, actor=self.actor, **asked.validated_data)).data)

    @extend_schema(responses=GuestSerializer, summary="What the guest's agent says, asked now.")
    @action(detail=True, methods=["get"])
    def guest(self, request: Any, uuid: str) -> Response:
        self.admit_look()
        instance = self.get_object()
        agent = doors.agent_of(instance)
        return Response(GuestSerializer(agents.ask(agent, GuestReport(uuid=str(instance.pk)))).data)


class InstanceOfferingViewSet(ResourceViewSet):
    """CPU and memory by a name."""

    queryset = InstanceOffering.objects.all()
    serializer_class = InstanceOfferingSerializer
    create = creates(offerings.create, OfferingInput)
    partial_update = updates(offerings.update)
    destroy = deletes(offerings.delete)
    enable = act(offerings.enable)
    disable = act(offerings.disable)


class UnknownDomainViewSet(ResourceViewSet):
    """Domains on hosts that the platform did not define, or whose instance it does not know. They are never touched."""

    queryset = UnknownDomain.objects.select_related("host")
    serializer_class = UnknownDomainSerializer
    more_filters = ("host",)
