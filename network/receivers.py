"""What networks do when infrastructure changes."""

from typing import Any

from django.db.models.signals import post_delete
from django.dispatch import receiver

from cloud.infra import usage
from cloud.infra.models import Agent, Host, Zone
from cloud.infra.signals import agent_connected
from network.models import L2Network, Nic, Vtep
from network.services import desired


@receiver(agent_connected, dispatch_uid="network.agent_connected")
def host_spoke(agent: Agent, **_facts: Any) -> None:
    """An agent told its facts: its tunnel endpoint may have moved."""
    desired.host_spoke(agent)


@receiver(post_delete, sender=Vtep, dispatch_uid="network.vtep_gone")
def vtep_gone(instance: Vtep, **_facts: Any) -> None:
    """A host left: its peers forget it."""
    desired.vtep_gone(instance)


@usage.register
def uses(resource: Any) -> list[usage.Use]:
    """L2 networks stand on a zone, placed NICs on a host."""
    if isinstance(resource, Zone):
        names = tuple(L2Network.objects.filter(zone=resource).values_list("name", flat=True)[:5])
        return [usage.Use("l2_network", L2Network.objects.filter(zone=resource).count(), names)]
    if isinstance(resource, Host):
        return [usage.Use("nic", Nic.objects.filter(host=resource).count())]
    return []
