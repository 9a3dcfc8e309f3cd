"""What compute hears from infra: observations of agents, hosts falling silent and coming back."""

from typing import Any

from django.db.models import Q
from django.dispatch import receiver

from cloud.common.wire import Document
from cloud.infra import observations, usage
from cloud.infra.models import Agent, AgentKind, Cluster, Host, Zone
from cloud.infra.signals import agent_connected, agent_disconnected
from compute import tasks
from compute.messages import EVENT_TOPIC, INVENTORY_TOPIC, DomainEvent, DomainInventory
from compute.models import Instance
from compute.services import reality


@usage.register
def instances(resource: Any) -> list[usage.Use]:
    """Instances stand on hosts, clusters and zones, those in the recycle bin too."""
    match resource:
        case Host():
            rows = Instance.objects.filter(Q(host=resource) | Q(last_host=resource))
        case Cluster():
            rows = Instance.objects.filter(cluster=resource)
        case Zone():
            rows = Instance.objects.filter(zone=resource)
        case _:
            return []
    return [usage.count("instance", rows)]


@observations.on(EVENT_TOPIC)
def domain_event(agent: Agent, body: Document) -> None:
    reality.domain_event(agent, DomainEvent.from_document(body))


@observations.on(INVENTORY_TOPIC)
def inventory(agent: Agent, body: Document) -> None:
    reality.inventory(agent, DomainInventory.from_document(body))


@receiver(agent_connected)
def host_back(sender: Any, agent: Agent, **_: Any) -> None:
    if agent.kind == AgentKind.HOST:
        tasks.host_back.delay(agent=str(agent.pk))


@receiver(agent_disconnected)
def host_silent(sender: Any, agent: Agent, **_: Any) -> None:
    reality.host_silent(agent)
