"""What lies under L2 networks: the hosts' network cards and the endpoints of VXLAN tunnels."""

import ipaddress
from collections.abc import Container, Iterable
from typing import Any

from django.utils.translation import gettext as _

from cloud.infra.models import Host
from network.messages import VXLAN_OVERHEAD_BYTES
from network.models import L2Kind, L2Network, Vtep


def refresh_vteps(hosts: Iterable[Host], pools: Iterable[L2Network] | None = None) -> set[L2Network]:
    """Note where the tunnels of pools end on these hosts, from what their agents said; in the caller's transaction.

    Without `pools` those that the host's cluster uses. A host that does not say keeps its last endpoint: a silent
    agent's guests still talk. Returns the pools in which something changed.
    """
    changed = set()
    for host in hosts:
        for pool in pools if pools is not None else pools_of(host):
            address = vtep_address(host, pool)
            if address is None:
                continue
            known = Vtep.objects.filter(host=host, pool=pool).first()
            if known is None or known.address != address:
                Vtep.objects.update_or_create(host=host, pool=pool, defaults={"address": address})
                changed.add(pool)
    return changed


def pools_of(host: Host) -> list[L2Network]:
    """The VXLAN pools whose networks are attached to the host's cluster."""
    pools = L2Network.objects.filter(kind=L2Kind.VXLAN_POOL)
    return list(pools.filter(networks__attachments__cluster=host.cluster_id).distinct())


def vtep_address(host: Host, pool: L2Network) -> str | None:
    """The host's first address inside the pool's VTEP network, None when its agent reported none."""
    wanted = ipaddress.ip_network(pool.vtep_cidr)
    for card in cards(host):
        for text in card.get("addresses", []):
            address = _address(text)
            if address is not None and address in wanted:
                return str(address)
    return None


def cards(host: Host) -> list[dict[str, Any]]:
    """The network cards that the host's agent reported: [{name, mac, mtu, addresses: ["10.0.0.1/24"]}]."""
    agent = host.agent
    found: list[dict[str, Any]] = agent.facts.get("nics", []) if agent is not None else []
    return found


def reason_against(host: Host, l2: L2Network, vteps: Container[tuple[Any, Any]]) -> str | None:
    """Why the host cannot carry an L2 network that is attached to its cluster; None when it can.

    `vteps` holds the known (host uuid, pool uuid) pairs.
    """
    if host.agent is None or not host.agent.facts:
        return _("Its agent has not yet said what network cards it has.")
    if l2.kind == L2Kind.VXLAN:
        assert l2.pool is not None
        if (host.pk, l2.pool_id) not in vteps:
            return _("None of its addresses is in the VTEP network %(cidr)s of %(pool)s.") % {
                "cidr": l2.pool.vtep_cidr,
                "pool": l2.pool,
            }
        return _reason_of_mtu(host, l2)
    card = next((each for each in cards(host) if each.get("name") == l2.physical_interface), None)
    if card is None:
        return _("It has no network card %(name)s, which %(network)s is on.") % {
            "name": l2.physical_interface,
            "network": l2,
        }
    if card.get("mtu", l2.mtu) < l2.mtu:
        return _("The MTU of its %(name)s is %(mtu)d, less than the %(wanted)d of %(network)s.") % {
            "name": l2.physical_interface,
            "mtu": card["mtu"],
            "wanted": l2.mtu,
            "network": l2,
        }
    if l2.kind == L2Kind.NO_VLAN and any(_address(text) for text in card.get("addresses", [])):
        return _("Its %(name)s has addresses of its own, so it cannot be given to %(network)s.") % {
            "name": l2.physical_interface,
            "network": l2,
        }
    return None


def _reason_of_mtu(host: Host, l2: L2Network) -> str | None:
    assert l2.pool is not None
    local = vtep_address(host, l2.pool)
    for card in cards(host):
        carries = any(text.partition("/")[0] == local for text in card.get("addresses", []))
        if carries and card.get("mtu", 0) < l2.mtu + VXLAN_OVERHEAD_BYTES:
            return _("The MTU of its %(name)s is %(mtu)d; %(network)s needs %(wanted)d there.") % {
                "name": card["name"],
                "mtu": card["mtu"],
                "network": l2,
                "wanted": l2.mtu + VXLAN_OVERHEAD_BYTES,
            }
    return None


def _address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Interface(text).ip
    except ValueError:
        return None  # IPv6
