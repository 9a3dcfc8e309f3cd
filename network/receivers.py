"""What networks do when infrastructure changes."""

from typing import Any

from django.db.models import Q
from django.db.models.signals import post_delete
from django.dispatch import receiver

from cloud.common.relations import BLOCKS, DETACHES, LOST, declare
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.signals import agent_connected
from network.models import AddressPurpose, IpAddress, IpRange, L2Network, L3Network, Nic, Vtep
from network.services import desired


@receiver(agent_connected, dispatch_uid="network.agent_connected")
def host_spoke(agent: Agent, **_facts: Any) -> None:
    """An agent told its facts: its tunnel endpoint may have moved."""
    desired.host_spoke(agent)


@receiver(post_delete, sender=Vtep, dispatch_uid="network.vtep_gone")
def vtep_gone(instance: Vtep, **_facts: Any) -> None:
    """A host left: its peers forget it."""
    desired.vtep_gone(instance)


declare(Zone, L2Network, by="zone", effect=BLOCKS)
declare(Host, Nic, by="host", effect=BLOCKS)
declare(L2Network, L2Network, by="pool", effect=BLOCKS)
declare(L2Network, L3Network, by="l2", effect=BLOCKS)
declare(L2Network, Cluster, by="l2_networks", effect=DETACHES)
declare(Cluster, L2Network, by="clusters", effect=DETACHES)
declare(L3Network, Nic, by="l3", effect=BLOCKS)
declare(L3Network, IpRange, by="l3", effect=LOST)
declare(L3Network, IpAddress, by="l3", effect=LOST, where=~Q(purpose=AddressPurpose.NIC))
