"""Network cards of instances. Compute calls these in its own transactions: the audit record is the instance's."""

import secrets
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Problem
from cloud.common.text import filled
from cloud.infra.models import Agent, DesiredSection, Host
from cloud.infra.services import desired as sections
from cloud.infra.services.desired import touch_all
from network.messages import NicAttachment, bridge_name
from network.models import AddressPurpose, L3Network, Nic
from network.services import addresses, attachments, placement
from network.services.desired import DHCP, NETWORKS
from network.services.names import hostname

Wanted = tuple[str, str, int]
_MAC_TRIES = 8


@transaction.atomic
def create(
    l3: L3Network,
    *,
    uuid: UUID,
    instance_uuid: UUID,
    instance_name: str,
    project: Any,
    device_index: int,
    actor: Actor,
    ip: str | None = None,
) -> Nic:
    """Make an instance's NIC with the chosen address or the lowest free one, in the caller's transaction.

    Raises Missing when the actor does not see the network, Invalid (`not_an_address`, `address_out_of_range`),
    Conflict (`address_taken`), Exhausted (`addresses_exhausted`, `no_ip_range`).
    """
    actor.require("nic.view", l3)
    held: dict[str, Any] = {
        "purpose": AddressPurpose.NIC,
        "holder": uuid,
        "name": instance_name,
        "project": project,
    }
    taken = addresses.take(l3, ip, actor=actor, **held) if ip else addresses.take_free(l3, **held)
    for _attempt in range(_MAC_TRIES):
        try:
            with told({"network_nic_mac_key": Conflict(code="mac_taken")}):
                return Nic.objects.create(
                    uuid=uuid,
                    name=f"nic{device_index}",
                    project=project,
                    l3=l3,
                    instance_uuid=instance_uuid,
                    instance_name=instance_name,
                    device_index=device_index,
                    mac=_random_mac(),
                    address=taken.address,
                )
        except Conflict:
            continue
    raise Conflict(_("No free MAC address was found."), code="mac_taken", advice=_("Try again."))


@transaction.atomic
def delete(nics: Iterable[Nic]) -> list[Wanted]:
    """Delete NICs and give their addresses back, once; those that are gone are fine.

    Returns what to wait for, where their hosts' DHCP servers are to forget them.
    """
    rows = list(nics)
    keys = [nic.pk for nic in rows]
    wanted = touch_all(_agents(rows), DHCP)
    Nic.objects.filter(pk__in=keys).delete()
    addresses.free_of(keys, AddressPurpose.NIC)
    return wanted


@transaction.atomic
def place(nics: Iterable[Nic], host: Host) -> list[Wanted]:
    """Say on which host the NICs' instance runs; returns what to wait for before it starts there.

    Its networks stay attached to the host's cluster at least until this is committed, and seen by who would detach.
    """
    rows = list(nics)
    attachments.kept(L3Network.objects.filter(nics__in=rows).values_list("l2_id", flat=True))
    before = _agents(rows)
    Nic.objects.filter(pk__in=[nic.pk for nic in rows]).update(host=host)
    for nic in rows:
        nic.host = host
    touch_all([agent for agent in before if agent.pk != host.agent_id] + _agents(rows), DHCP)
    return wants(rows)


@transaction.atomic
def unplace(nics: Iterable[Nic]) -> list[Wanted]:
    """Say that the NICs' instance runs nowhere; returns what to wait for until their host has forgotten them."""
    rows = list(nics)
    before = _agents(rows)
    Nic.objects.filter(pk__in=[nic.pk for nic in rows]).update(host=None)
    for nic in rows:
        nic.host = None
    return touch_all(before, DHCP)


def wants(nics: Iterable[Nic]) -> list[Wanted]:
    """What the hosts of these NICs must hold before their instance starts: (agent uuid, section, number)."""
    agents = _agents(list(nics))
    rows = DesiredSection.objects.filter(agent__in=agents, section__in=[NETWORKS, DHCP])
    found = [(str(row.agent_id), row.section, row.wanted) for row in rows.order_by("agent_id", "section")]
    known = {agent for agent, section, _number in found if section == NETWORKS}
    # A host that was never told of its networks is told now.
    return found + touch_all([agent for agent in agents if str(agent.pk) not in known], NETWORKS)


def are_served(nics: Iterable[Nic]) -> bool:
    """Whether the hosts of these NICs serve their networks, as far as they have told; False while that may pass.

    Raises Problem with what the host said when it does not pass by itself. For who has waited for `wants`.
    """
    placed = Nic.objects.filter(pk__in=[nic.pk for nic in nics]).exclude(host__agent=None).select_related("l3", "host")
    agents = dict(placed.values_list("pk", "host__agent"))
    failing = sections.failing(agents.values(), NETWORKS, DHCP)
    found = [(nic, placement.failure_of(nic.l3, failing.get(agents[nic.pk], {}))) for nic in placed]
    for nic, failure in found:
        if failure is not None and failure["nature"] != "transient":
            raise Problem(
                filled(
                    _("%(host)s cannot serve the network %(network)s: %(failure)s"),
                    host=nic.host,
                    network=nic.l3,
                    failure=failure["detail"],
                ),
                code=failure["code"],
                advice=_("Correct it on the host, or start the instance on another one."),
                nature=failure["nature"],
            )
    return all(failure is None for _nic, failure in found)


def attachment(nic: Nic) -> NicAttachment:
    """How the NIC is plugged in, for the description of its domain."""
    l3 = nic.l3
    inside = l3.ranges.filter(start__lte=nic.address, end__gte=nic.address).first()
    return NicAttachment(
        uuid=str(nic.pk),
        mac=nic.mac,
        bridge=bridge_name(str(l3.l2_id)),
        mtu=l3.mtu,
        address=nic.address,
        prefix=inside.prefix if inside else 32,
        gateway=(inside.gateway or "") if inside else "",
        dns=list(l3.dns),
        hostname=hostname(nic.instance_name, nic.instance_uuid),
        l3=str(l3.pk),
    )


def _agents(nics: list[Nic]) -> list[Agent]:
    hosts = {nic.host_id for nic in nics if nic.host_id}
    return list(Agent.objects.filter(host__in=hosts)) if hosts else []


def _random_mac() -> str:
    # fa: locally administered, for one receiver (IEEE 802-2014 §8.4).
    return ":".join(["fa", *(f"{byte:02x}" for byte in secrets.token_bytes(5))])
