"""What compute hears from infra: observations of agents, hosts falling silent and coming back."""

from typing import Any

from django.db.models import F, Q
from django.dispatch import receiver

from cloud.common.relations import BLOCKS, DETACHES, LOST, RECYCLED, STAYS, declare
from cloud.common.wire import Document
from cloud.infra import observations
from cloud.infra.models import Agent, AgentKind, Cluster, Host, Zone
from cloud.infra.signals import agent_connected, agent_disconnected
from compute import tasks
from compute.messages import EVENT_TOPIC, INVENTORY_TOPIC, DomainEvent, DomainInventory
from compute.models import Instance, InstanceOffering
from compute.services import reality
from network.models import Nic
from storage.models import Image, Volume

# Instances stand on hosts, clusters and zones, those in the recycle bin too.
declare(Zone, Instance, by="zone", effect=BLOCKS)
declare(Cluster, Instance, by="cluster", effect=BLOCKS)
declare(Host, Instance, by="host", effect=BLOCKS)
declare(Host, Instance, by="last_host", effect=BLOCKS, where=~Q(host=F("last_host")) | Q(host=None))
declare(InstanceOffering, Instance, by="instance_offering", effect=DETACHES)
declare(Image, Instance, by="image", effect=STAYS)
declare(Image, Instance, by="image", effect=DETACHES, verb="expunge")
declare(Instance, Volume, by="instance_uuid", effect=RECYCLED)
declare(Instance, Nic, by="instance_uuid", effect=RECYCLED)
declare(Instance, Volume, by="instance_uuid", effect=LOST, verb="expunge")
declare(Instance, Nic, by="instance_uuid", effect=LOST, verb="expunge")


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
