"""Network cards of instances. Compute calls these in its own transactions: the audit record is the instance's."""

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import quotas
from cloud.common.actor import Actor
from cloud.common.constraints import broken
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


@dataclass(frozen=True)
class NewNic:
    """A NIC to make: of which instance, on which network, with the chosen address or the lowest free one, and on which
    host its instance is about to run, if on one."""

    l3: L3Network
    instance_uuid: UUID
    instance_name: str
    project: Any
    device_index: int
    ip: str | None = None
    ip_field: str = "ip"
    host: Host | None = None
    uuid: UUID = field(default_factory=uuid4)


class MacTaken(Conflict):
    """A MAC address drawn at random is another NIC's: roll back, draw again."""

    code = "mac_taken"


def create_all(wanted: Sequence[NewNic], *, actor: Actor) -> list[Nic]:
    """Make NICs, in the caller's transaction, who rolls back when this raises.

    Raises Missing when the actor does not see a network, Invalid (`not_an_address`, `address_out_of_range`),
    Conflict (`address_taken`), Exhausted (`addresses_exhausted`, `no_ip_range`), MacTaken. What is wrong with a chosen
    address is told of its `ip_field`.
    """
    given: dict[UUID, str] = {}
    for l3, alike in _by_network(wanted):
        actor.require("nic.view", l3)
        holders = [addresses.Holder(new.uuid, new.instance_name, new.project) for new in alike if not new.ip]
        given |= addresses.take_free(l3, holders, purpose=AddressPurpose.NIC) if holders else {}
    for new in wanted:
        if new.ip:
            given[new.uuid] = _take_chosen(new, new.ip, actor)
    rows = [
        Nic(
            uuid=new.uuid,
            name=f"nic{new.device_index}",
            project=new.project,
            l3=new.l3,
            instance_uuid=new.instance_uuid,
            instance_name=new.instance_name,
            device_index=new.device_index,
            mac=_random_mac(),
            address=given[new.uuid],
            host=new.host,
        )
        for new in wanted
    ]
    try:
        Nic.objects.bulk_create(rows)
    except IntegrityError as error:
        if broken(error) != "network_nic_mac_key":
            raise
        raise MacTaken(_("No free MAC address was found."), advice=_("Try again.")) from error
    return rows


def _by_network(wanted: Sequence[NewNic]) -> list[tuple[L3Network, list[NewNic]]]:
    alike: dict[UUID, list[NewNic]] = defaultdict(list)
    for new in wanted:
        alike[new.l3.pk].append(new)
    return [(each[0].l3, each) for each in alike.values()]


def _take_chosen(new: NewNic, ip: str, actor: Actor) -> str:
    taken = addresses.take(
        new.l3,
        ip,
        purpose=AddressPurpose.NIC,
        holder=new.uuid,
        name=new.instance_name,
        project=new.project,
        actor=actor,
        field=new.ip_field,
    )
    return str(taken.address)


@transaction.atomic
def create(l3: L3Network, *, actor: Actor, **fields: Any) -> Nic:
    """Make one NIC, as `create_all` does; `fields` are those of NewNic."""
    for _attempt in range(_MAC_TRIES):
        try:
            with transaction.atomic():
                made = create_all([NewNic(l3, **fields)], actor=actor)[0]
                quotas.take(made.project, made.amounts)
                return made
        except MacTaken:
            continue
    raise MacTaken(_("No free MAC address was found."), advice=_("Try again."))


@transaction.atomic
def delete(nics: Iterable[Nic]) -> list[Wanted]:
    """Delete NICs and give their addresses back, once; those that are gone are fine.

    Returns what to wait for, where their hosts' DHCP servers are to forget them.
    """
    gone, wanted = drop_all(Nic.objects.filter(pk__in=[nic.pk for nic in nics]))
    for project, count in Counter(nic.project_id for nic in gone).items():
        quotas.give(project, {"addresses": count})
    return wanted


def drop_all(nics: Any) -> tuple[list[Nic], list[Wanted]]:
    """As `delete`, of a queryset, in the caller's transaction, who gives what they counted for to `quotas` when it
    takes nothing more. Returns those that this call deleted, and what to wait for."""
    rows = list(nics.select_for_update(of=("self",)).order_by("pk"))
    keys = [nic.pk for nic in rows]
    wanted = touch_all(_agents(rows), DHCP)
    Nic.objects.filter(pk__in=keys).delete()
    addresses.free_of(keys, AddressPurpose.NIC)
    return rows, wanted


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


def announce(hosts: Iterable[Host]) -> dict[UUID, list[Wanted]]:
    """Say that NICs were made on these hosts (with their agents), in the transaction that made them; what to wait for
    before their instances start, by host."""
    agents = {host.agent_id: host.agent for host in hosts if host.agent is not None}
    touched = touch_all(agents.values(), DHCP)
    networks = DesiredSection.objects.filter(agent__in=agents, section=NETWORKS)
    found = [(str(row.agent_id), row.section, row.wanted) for row in networks]
    # A host that was never told of its networks is told now.
    told = {agent for agent, _section, _number in found}
    found += touch_all([agent for key, agent in agents.items() if str(key) not in told], NETWORKS)
    by_agent: dict[str, list[Wanted]] = defaultdict(list)
    for each in sorted([*touched, *found]):
        by_agent[each[0]].append(each)
    return {host.pk: by_agent[str(host.agent_id)] for host in hosts}


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
    rows = Nic.objects.filter(pk__in=[nic.pk for nic in nics]).exclude(host__agent=None).select_related("l3", "host")
    placed = list(rows)
    agents = {nic.pk: nic.host.agent_id for nic in placed if nic.host and nic.host.agent_id}
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
