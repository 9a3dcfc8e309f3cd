"""The address ranges of L3 networks."""

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.errors import Conflict, Problem
from cloud.events.services import audit
from network.models import AddressPurpose, IpAddress, IpRange, L2Network, L3Network
from network.services import addresses, desired, ipv4


def _no_nic_inside(rows: Sequence[IpRange], actor: Actor) -> dict[Any, Problem]:
    """Against deleting ranges that NICs have addresses of."""
    inside = IpAddress.objects.filter(
        l3=OuterRef("l3"), address__gte=OuterRef("start"), address__lte=OuterRef("end"), purpose=AddressPurpose.NIC
    )
    used = set(IpRange.objects.filter(Exists(inside), pk__in=[row.pk for row in rows]).values_list("pk", flat=True))
    return {row.pk: _in_use(row, is_named=len(rows) == 1) for row in rows if row.pk in used}


def _in_use(row: IpRange, *, is_named: bool) -> Conflict:
    inside = IpAddress.objects.filter(l3=row.l3_id, address__gte=row.start, address__lte=row.end)
    users = inside.filter(purpose=AddressPurpose.NIC)[:5] if is_named else []
    return Conflict(
        _("Addresses of this range are in use."),
        code="in_use",
        advice=_("Delete the instances that use them first."),
        used_by=[{"purpose": user.purpose, "name": user.name, "address": user.address} for user in users],
    )


@transaction.atomic
def add(
    *,
    actor: Actor,
    l3: L3Network,
    name: str = "",
    description: str = "",
    cidr: str = "",
    start: str = "",
    end: str = "",
    prefix: int | None = None,
    netmask: str = "",
    gateway: str | None = None,
) -> IpRange:
    """Add a range, as a network (`cidr`) or by its ends with prefix or netmask.

    The first range settles the subnet, the gateway and the address of the DHCP server. Raises Invalid when it makes no
    sense or lies in another subnet, Conflict (`range_overlap`) when it meets a range of the same L2 network, Conflict
    (`address_in_use`) when addresses that others have there are in it, or its gateway is in another network's range.
    """
    actor.require("ip_range.create", l3)
    span = ipv4.span(cidr=cidr, start=start, end=end, prefix=prefix, netmask=netmask, gateway=gateway)
    # Ranges of one L2 network are compared, so they are added one at a time.
    L2Network.objects.select_for_update(no_key=True).get(pk=l3.l2_id)
    _expect_no_overlap(l3, span)
    present = l3.ranges.first()
    if present is not None:
        _expect_same_subnet(present, span, is_gateway_given=gateway is not None)
    router = present.gateway if present is not None else (str(span.gateway) if span.gateway else None)
    _expect_nobody_inside(l3, span, router)
    _expect_gateway_free(l3, router)
    row = IpRange.objects.create(
        l3=l3,
        name=name or f"{span.start}–{span.end}",
        description=description,
        project=l3.project,
        start=str(span.start),
        end=str(span.end),
        prefix=span.subnet.prefixlen,
        gateway=router,
        first_free=str(span.start),
    )
    _settle(l3, row, actor)
    audit.record("ip_range.create", actor=actor, resource=row)
    return row


@acting("ip_range.delete", checks=[_no_nic_inside])
def delete(row: IpRange, *, actor: Actor) -> None:
    """Delete a range that no NIC has an address of. Raises Conflict (`in_use`).

    The DHCP server moves to another range of the network; with the last range it goes, and so does the gateway.
    """
    l3 = row.l3
    # Waits for those who are taking an address of it right now, and lets nobody begin.
    IpRange.objects.select_for_update().get(pk=row.pk)
    inside = IpAddress.objects.filter(l3=l3, address__gte=row.start, address__lte=row.end)
    for problem in _no_nic_inside([row], actor).values():
        raise problem
    audit.record("ip_range.delete", actor=actor, resource=row)
    is_last = not l3.ranges.exclude(pk=row.pk).exists()
    row.delete()
    if is_last:
        addresses.free(IpAddress.objects.filter(l3=l3).exclude(purpose=AddressPurpose.RESERVED))
    elif server := inside.filter(purpose=AddressPurpose.DHCP).first():
        addresses.free([server])
        _serve_dhcp(l3)
        desired.touch_servers(l3)


@acting("ip_range.update")
def update(row: IpRange, *, actor: Actor, name: str | None = None, description: str | None = None) -> IpRange:
    """Rename a range; its addresses do not change."""
    row.name = row.name if name is None else name
    row.description = row.description if description is None else description
    row.save(update_fields=["name", "description", "updated_at"])
    audit.record("ip_range.update", actor=actor, resource=row)
    return row


def _settle(l3: L3Network, row: IpRange, actor: Actor) -> None:
    """See that the network's gateway is nobody else's, and that its DHCP server has an address."""
    own: dict[str, Any] = {"holder": l3.pk, "name": l3.name, "project": l3.project}
    held = set(l3.addresses.values_list("purpose", flat=True))
    if row.gateway and AddressPurpose.GATEWAY not in held:
        addresses.take(l3, row.gateway, purpose=AddressPurpose.GATEWAY, actor=actor, field="gateway", **own)
    if AddressPurpose.DHCP not in held:
        _serve_dhcp(l3)


def _serve_dhcp(l3: L3Network) -> None:
    addresses.take_free(l3, [addresses.Holder(l3.pk, l3.name, l3.project)], purpose=AddressPurpose.DHCP)


def _expect_no_overlap(l3: L3Network, span: ipv4.Span) -> None:
    # Two L3 networks on one wire with the same addresses would be two guests with the same address.
    meets = Q(start__lte=str(span.end), end__gte=str(span.start))
    other = IpRange.objects.filter(meets, l3__l2=l3.l2_id).select_related("l3").first()
    if other is not None:
        raise Conflict(
            _("This range overlaps %(start)s–%(end)s of %(network)s.")
            % {"start": other.start, "end": other.end, "network": other.l3},
            code="range_overlap",
            errors={"start": [_("This overlaps another range of the same L2 network.")]},
        )


def _expect_nobody_inside(l3: L3Network, span: ipv4.Span, router: str | None) -> None:
    """Raise Conflict when another network on the wire has one of the addresses; a router may be both networks'."""
    inside = Q(address__gte=str(span.start), address__lte=str(span.end))
    other = IpAddress.objects.filter(inside, l3__l2=l3.l2_id).exclude(l3=l3).select_related("l3")
    routers = IpRange.objects.filter(l3__l2=l3.l2_id, gateway__gte=str(span.start), gateway__lte=str(span.end))
    shared = Q(purpose__in=(AddressPurpose.GATEWAY, AddressPurpose.RESERVED), address=router)
    held = other.exclude(shared).order_by("address").first() if router else other.order_by("address").first()
    if held is not None:
        raise addresses.in_use_beside("start", held.address, held.l3)
    foreign = routers.exclude(l3=l3).exclude(gateway=router).select_related("l3").first()
    if foreign is not None:
        raise addresses.in_use_beside("start", str(foreign.gateway), foreign.l3)


def _expect_gateway_free(l3: L3Network, router: str | None) -> None:
    """Raise Conflict when another network on the wire has the gateway's address, or may give it to an instance."""
    if router is None:
        return
    others = IpAddress.objects.filter(l3__l2=l3.l2_id, address=router).exclude(l3=l3).select_related("l3")
    kept = set()
    for row in others:
        if row.purpose not in (AddressPurpose.GATEWAY, AddressPurpose.RESERVED):
            raise addresses.in_use_beside("gateway", router, row.l3)
        kept.add(row.l3_id)
    around = IpRange.objects.filter(l3__l2=l3.l2_id, start__lte=router, end__gte=router)
    giver = around.exclude(l3=l3).exclude(l3__in=kept).select_related("l3").first()
    if giver is not None:
        raise addresses.in_use_beside("gateway", router, giver.l3)


def _expect_same_subnet(present: IpRange, span: ipv4.Span, *, is_gateway_given: bool) -> None:
    subnet = IPv4Network(f"{present.start}/{present.prefix}", strict=False)
    if span.subnet != subnet:
        raise ipv4.invalid(
            "start",
            _("The network's subnet is %(subnet)s: its other ranges lie there.") % {"subnet": subnet},
            code="other_subnet",
        )
    if is_gateway_given and (str(span.gateway) if span.gateway else None) != present.gateway:
        raise ipv4.invalid(
            "gateway",
            _("The network's gateway is %(gateway)s.") % {"gateway": present.gateway or "-"},
            code="other_gateway",
        )
