"""Acts on L3 networks."""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import quotas
from cloud.common import deletion
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.errors import Conflict
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit
from network.models import AddressPurpose, IpAddress, L2Kind, L2Network, L3Kind, L3Network
from network.models.l2 import MTU_MIN
from network.services import desired, ipv4
from network.services import ranges as ip_ranges
from network.services.names import is_domain

DNS_MOST, ROUTES_MOST = 4, 32


@transaction.atomic
def create(
    *,
    actor: Actor,
    l2: L2Network,
    name: str,
    description: str = "",
    kind: str = L3Kind.FLAT,
    ip_version: int = 4,
    domain: str = "",
    dns: Iterable[str] = (),
    routes: Iterable[dict[str, str]] = (),
    mtu: int | None = None,
    ranges: Iterable[dict[str, Any]] = (),
) -> L3Network:
    """Make an L3 network on an L2 network, with its ranges (fields as in `ranges.add`) or none yet.

    `mtu` defaults to the L2 network's. Raises Invalid with the field that does not fit,
    QuotaExceeded.
    """
    actor.require("l3_network.create", l2)
    if l2.kind == L2Kind.VXLAN_POOL:
        raise ipv4.invalid("l2", _("A VXLAN pool is no network itself: choose one of its VXLAN networks."))
    row = L3Network.objects.create(
        l2=l2,
        project_id=l2.project_id,
        name=name,
        description=description,
        kind=kind,
        ip_version=ip_version,
        domain=_domain(domain),
        dns=_dns(dns),
        routes=_routes(routes),
        mtu=_mtu(mtu, l2),
    )
    audit.record("l3_network.create", actor=actor, resource=row)
    for each in ranges:
        ip_ranges.add(actor=actor, l3=row, **each)
    quotas.take(row.project_id, {"l3_networks": 1})
    return row


@acting("l3_network.update")
def update(l3: L3Network, *, actor: Actor, **changes: Any) -> L3Network:
    """Change name, description, domain, dns, routes or mtu; guests hear of it when they renew their lease."""
    clean: dict[str, Callable[[Any], Any]] = {
        "domain": _domain,
        "dns": _dns,
        "routes": _routes,
        "mtu": lambda mtu: _mtu(mtu, l3.l2),
    }
    for name, value in changes.items():
        setattr(l3, name, clean[name](value) if name in clean else value)
    l3.save(update_fields=[*changes, "updated_at"])
    if changes.keys() & clean.keys():
        desired.touch_servers(l3)
    audit.record("l3_network.update", actor=actor, resource=l3, detail={"fields": sorted(changes)})
    return l3


@acting("l3_network.delete", checks=[nothing_blocks])
def delete(l3: L3Network, *, actor: Actor) -> None:
    """Delete a network with its ranges and reserved addresses. Raises Conflict (`in_use`) while NICs are on it."""
    # Waits for those who are taking an address right now; who comes later finds no range.
    held = [row.pk for row in l3.ranges.select_for_update()]
    users = list(l3.nics.all()[:5])
    if users:
        raise Conflict(
            _("Instances have network cards on %(network)s.") % {"network": l3},
            code="in_use",
            advice=_("Expunge these instances first."),
            used_by=[{"kind": "instance", "uuid": str(nic.instance_uuid), "name": nic.instance_name} for nic in users],
        )
    audit.record("l3_network.delete", actor=actor, resource=l3, detail={"ranges": len(held)})
    IpAddress.objects.filter(l3=l3).exclude(purpose=AddressPurpose.NIC).delete()
    l3.ranges.filter(pk__in=held).delete()
    project = l3.project_id
    if deletion.delete(l3):
        quotas.give(project, {"l3_networks": 1})


def _domain(text: str) -> str:
    domain = text.strip().rstrip(".").lower()
    if domain and not is_domain(domain):
        raise ipv4.invalid("domain", _("This is not a DNS domain, as cloud.example.org."))
    return domain


def _dns(servers: Iterable[str]) -> list[str]:
    found = [str(ipv4.address(server, "dns")) for server in servers]
    if len(found) > DNS_MOST:
        raise ipv4.invalid("dns", _("At most %(count)d DNS servers.") % {"count": DNS_MOST})
    return list(dict.fromkeys(found))


def _routes(routes: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    found = [
        {
            "destination": str(ipv4.network(route["destination"], "routes")),
            "via": str(ipv4.address(route["via"], "routes")),
        }
        for route in routes
    ]
    if len(found) > ROUTES_MOST:
        raise ipv4.invalid("routes", _("At most %(count)d routes.") % {"count": ROUTES_MOST})
    return found


def _mtu(wanted: int | None, l2: L2Network) -> int:
    if wanted is not None and not MTU_MIN <= wanted <= l2.mtu:
        raise ipv4.invalid("mtu", _("The MTU is between %(least)d and %(most)d.") % {"least": MTU_MIN, "most": l2.mtu})
    return wanted or l2.mtu
