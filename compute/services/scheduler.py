"""Which host an instance goes to: filters say no with a reason, weights put the rest in order, a conditional update
books the room. Two schedulers at once never book the same room twice, because only the booking decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from cloud.common.errors import NoHostFits
from cloud.common.models import Availability, Connection
from cloud.infra.models import Cluster, Host, HostState, Zone
from cloud.infra.services import capacity
from network.services import placement as network_placement
from storage.services import placement as storage_placement
from storage.services.placement import VolumeNeed


@dataclass(frozen=True)
class Needs:
    """What an instance needs of a host. `host`, `cluster` and `zone` narrow the choice."""

    cpu: int
    memory_bytes: int
    volumes: tuple[VolumeNeed, ...] = ()
    l3_networks: tuple[Any, ...] = ()
    zone: Zone | None = None
    cluster: Cluster | None = None
    host: Host | None = None
    avoid: frozenset[UUID] = field(default_factory=frozenset)


Filter = Callable[[Host, Needs], str | None]


def _is_available(host: Host, needs: Needs) -> str | None:
    for place in (host, host.cluster, host.cluster.zone):
        if getattr(place, "availability", Availability.ENABLED) != Availability.ENABLED:
            return _("%(name)s is %(availability)s.") % {"name": place, "availability": place.availability}
    return None


def _is_connected(host: Host, needs: Needs) -> str | None:
    if host.state != HostState.READY:
        return _("The host is still being added.")
    return None if host.connection == Connection.CONNECTED else _("The host is %s.") % host.connection


def _has_storage(host: Host, needs: Needs) -> str | None:
    return storage_placement.reason_against(host, list(needs.volumes)) if needs.volumes else None


def _filters(needs: Needs) -> tuple[Filter, ...]:
    """The filters in the order they are asked; what they need of the database for all hosts is read once."""
    against_networks = network_placement.reasons_against(needs.l3_networks)

    def has_networks(host: Host, needs: Needs) -> str | None:
        return against_networks(host)

    return (_is_available, _is_connected, has_networks, _has_storage)


def _weight(host: Host) -> float:
    """The emptier in memory, then in CPU, the better: load spreads over hosts."""
    room = host.capacity
    memory = room.memory_used_bytes / (room.memory_total_bytes or 1)
    return float(memory + 0.1 * room.cpu_used / (room.cpu_total or 1))


def _candidates(needs: Needs) -> Sequence[Host]:
    hosts = Host.objects.select_related("cluster__zone", "agent", "capacity")
    if needs.host:
        hosts = hosts.filter(pk=needs.host.pk)
    if needs.cluster:
        hosts = hosts.filter(cluster=needs.cluster)
    if needs.zone:
        hosts = hosts.filter(cluster__zone=needs.zone)
    return list(hosts)


def reserve(needs: Needs) -> Host:
    """Book CPU and memory on the best host that fits, in the caller's transaction.

    Raises NoHostFits with `reasons`: [{host, name, reason}], one for every host looked at.
    """
    reasons: list[dict[str, str]] = []
    fitting: list[Host] = []
    filters = _filters(needs)
    for host in _candidates(needs):
        against = next((said for check in filters if (said := check(host, needs))), None)
        if against is None and hasattr(host, "capacity"):
            fitting.append(host)
        else:
            reasons.append(_reason(host, against or _("Its hardware is not known yet.")))
    for host in sorted(fitting, key=_weight):
        if host.pk in needs.avoid:
            reasons.append(_reason(host, _("Its storage was just taken by another request.")))
        elif capacity.take(host, cpu=needs.cpu, memory_bytes=needs.memory_bytes):
            return host
        else:
            reasons.append(_reason(host, _("It has not enough CPU or memory left.")))
    raise NoHostFits(
        " ".join(f"{said['name']}: {said['reason']}" for said in reasons[:5]) or _("There is no host there."),
        advice=_("Choose a smaller offering, another zone or cluster, or add a host."),
        reasons=reasons,
    )


def _reason(host: Host, reason: str) -> dict[str, str]:
    return {"host": str(host.pk), "name": host.name, "reason": reason}
