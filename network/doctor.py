"""What the doctor looks for on hosts' networks: interfaces and DHCP entries that nobody wants, or that are missing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Look, Report, Wanted, asks, check
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.infra.models import Agent, Host
from cloud.infra.services.desired import touch_all
from network.messages import (
    DEVICE_KEEPER,
    TAP_PREFIX,
    SeenNetworks,
    bridge_name,
    dhcp_port_name,
    namespace_name,
    tap_name,
    vlan_name,
    vxlan_name,
)
from network.models import AddressPurpose, IpAddress, IpRange, L2Attachment, L2Kind, L2Network, Nic, Vtep
from network.services import underlay
from network.services.desired import DHCP, NETWORKS

SECTION_OF = {"bridge": NETWORKS, "vxlan": NETWORKS, "vlan": NETWORKS, "veth": DHCP, "namespace": DHCP}
CONVERGE = _("have the host converge again")


@asks("network")
def hosts() -> dict[str, Document]:
    return {str(agent): {} for agent in Host.objects.exclude(agent=None).values_list("agent", flat=True)}


@dataclass
class Wants:
    """What a host should have: devices by name with their kind, (L3, MAC, IP) of the NICs placed there."""

    devices: dict[str, str] = field(default_factory=dict)
    entries: set[tuple[str, str, str]] = field(default_factory=set)


def wants(only: Iterable[str] | None = None) -> dict[str, Wants]:
    """By agent, for all hosts or some; a fixed number of queries."""
    machines = Host.objects.exclude(agent=None).select_related("agent")
    if only is not None:
        machines = machines.filter(agent__in=list(only))
    l2s: dict[UUID, list[L2Network]] = defaultdict(list)
    attached = L2Attachment.objects.exclude(l2__kind=L2Kind.VXLAN_POOL).select_related("l2__pool")
    for row in attached:
        l2s[row.cluster_id].append(row.l2)
    vteps = set(Vtep.objects.values_list("host_id", "pool_id"))
    served = set(IpAddress.objects.filter(purpose=AddressPurpose.DHCP).values_list("l3_id", flat=True))
    served &= set(IpRange.objects.values_list("l3_id", flat=True))
    nics: dict[Any, list[tuple[UUID, UUID, str, str]]] = defaultdict(list)
    placed = Nic.objects.filter(host__in=machines)
    for at, key, network, mac, address in placed.values_list("host_id", "pk", "l3_id", "mac", "address"):
        nics[at].append((key, network, mac, address))
    found: dict[str, Wants] = {}
    for host in machines:
        wanted = found[str(host.agent_id)] = Wants()
        for l2 in l2s[host.cluster_id]:
            if underlay.reason_against(host, l2, vteps) is None:
                _want_l2(wanted, l2)
        for key, network, mac, address in nics[host.pk]:
            wanted.devices[tap_name(str(key))] = "tun"
            if network in served:
                l3 = str(network)
                wanted.devices |= {dhcp_port_name(l3): "veth", namespace_name(l3): "namespace"}
                wanted.entries.add((l3, mac, address))
    return found


def _want_l2(wanted: Wants, l2: L2Network) -> None:
    wanted.devices[bridge_name(str(l2.pk))] = "bridge"
    if l2.kind == L2Kind.VXLAN:
        wanted.devices[vxlan_name(l2.vni or 0)] = "vxlan"
    elif l2.kind == L2Kind.VLAN:
        wanted.devices[vlan_name(str(l2.pk))] = "vlan"


def _compared(look: Look) -> list[tuple[Report, SeenNetworks, Wants]]:
    """What each host has of networks, and what it should have."""
    wanted = wants()
    return [
        (report, SeenNetworks.from_document(document), wanted[report.agent])
        for report, document in look.parts("network")
        if report.agent in wanted
    ]


class _Taps:
    """Whose taps there may be, by their names: those of all NICs, wherever they are."""

    def __init__(self, look: Look) -> None:
        rows = Nic.objects.values_list("pk", "instance_uuid")
        self._instances = {tap_name(str(nic)): instance for nic, instance in rows}

    def is_busy(self, name: str, look: Look) -> bool:
        instance = self._instances.get(name)
        return instance is not None and look.is_busy(instance)


def _found(kind: str, report: Report, name: str, detail: Any, *, section: str, **more: Any) -> Finding:
    return Finding(
        kind,
        "host",
        report.agent,
        f"{report.name}: {name}",
        detail,
        agent=report.agent,
        host=report.name,
        thing={"name": name, "section": section},
        **more,
    )


def _is_unwanted(finding: Finding) -> bool:
    wanted = wants([finding.agent]).get(finding.agent)
    return wanted is None or finding.thing["name"] not in wanted.devices


def _converge(finding: Finding, actor: Actor) -> list[Wanted]:
    """Bring all networks of the host to what they should be; in the order in which they stand on each other."""
    return touch_all(Agent.objects.filter(pk=finding.agent), NETWORKS, DHCP)


def _converge_after(finding: Finding) -> list[Document]:
    # Whoever came to want the interface while it was taken away has it made anew.
    touch_all(Agent.objects.filter(pk=finding.agent), NETWORKS, DHCP)
    return []


LEAKS = {
    "tap_leak": (("tun",), _("A tap that no network card on this host has")),
    "bridge_leak": (("bridge",), _("A bridge that no network on this host has")),
    "uplink_leak": (("vxlan", "vlan"), _("A VXLAN or VLAN interface that no network on this host has")),
    "dhcp_port_leak": (("veth",), _("A DHCP server's port that no network on this host has")),
    "namespace_leak": (("namespace",), _("A network namespace that no network on this host has")),
}


def _leaks(kind: str, kinds: tuple[str, ...]) -> Callable[[Look], Iterator[Finding]]:
    def look_for(look: Look) -> Iterator[Finding]:
        taps = look.once(_Taps)
        for report, seen, wanted in look.once(_compared):
            for device in seen.devices:
                if device.type not in kinds or device.name in wanted.devices:
                    continue
                section = SECTION_OF.get(device.type, "")
                if (report.agent, section) in look.settling or taps.is_busy(device.name, look):
                    continue
                detail = _("A guest is behind it.") if device.is_used else _("Nobody wants it there.")
                more = {"is_mendable": not device.is_used}
                yield _found(kind, report, device.name, detail, section=section, **more)

    look_for.__qualname__ = kind
    return look_for


for _kind, (_kinds, _label) in LEAKS.items():
    check(
        _kind,
        "leak",
        label=_label,
        mend=_("remove it, and have the host converge again"),
        keeper=DEVICE_KEEPER,
        still=_is_unwanted,
        settle=_converge_after,
        is_kept=False,
    )(_leaks(_kind, _kinds))


@check(
    "device_missing",
    "missing",
    label=_("An interface that a host should have"),
    mend=CONVERGE,
    fix=_converge,
)
def device_missing(look: Look) -> Iterator[Finding]:
    """Taps are the hypervisor's: without its tap no domain runs."""
    for report, seen, wanted in look.once(_compared):
        there = {device.name for device in seen.devices}
        for name, kind in sorted(wanted.devices.items()):
            section = SECTION_OF.get(kind, "")
            if name in there or name.startswith(TAP_PREFIX) or (report.agent, section) in look.settling:
                continue
            detail = filled(_("The host has no %(kind)s %(name)s."), kind=kind, name=name)
            yield _found("device_missing", report, name, detail, section=section)


def _entries(seen: SeenNetworks) -> set[tuple[str, str, str]]:
    return {(server.l3, entry.mac, entry.ip) for server in seen.servers for entry in server.hosts}


@check("dhcp_leak", "leak", label=_("A DHCP entry that no network card has"), mend=CONVERGE, fix=_converge)
def dhcp_leak(look: Look) -> Iterator[Finding]:
    for report, seen, wanted in look.once(_compared):
        if (report.agent, DHCP) not in look.settling:
            for l3, mac, ip in sorted(_entries(seen) - wanted.entries):
                detail = filled(_("The DHCP server of %(l3)s knows it."), l3=l3)
                yield _found("dhcp_leak", report, f"{mac} {ip}", detail, section=DHCP)


@check("dhcp_missing", "missing", label=_("A network card that no DHCP server knows"), mend=CONVERGE, fix=_converge)
def dhcp_missing(look: Look) -> Iterator[Finding]:
    for report, seen, wanted in look.once(_compared):
        if (report.agent, DHCP) in look.settling:
            continue
        running = {server.l3 for server in seen.servers if server.is_running}
        known = _entries(seen)
        for l3, mac, ip in sorted(wanted.entries):
            if l3 not in running or (l3, mac, ip) not in known:
                detail = filled(_("The DHCP server of %(l3)s does not serve it."), l3=l3)
                yield _found("dhcp_missing", report, f"{mac} {ip}", detail, section=DHCP)
