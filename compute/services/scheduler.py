"""Which host an instance goes to: the database sorts out and orders, a closer look says no with a reason, a conditional
update books the room. Two schedulers at once never book the same room twice, because only the booking decides."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, FloatField, OuterRef, Value
from django.db.models.functions import Cast, Greatest, Random, Round
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from cloud.common.errors import NoHostFits
from cloud.common.models import Availability, Connection
from cloud.infra.models import Cluster, Host, HostCapacity, HostState, Zone
from cloud.infra.services import capacity, readiness
from cloud.infra.services.capacity import Amount
from network.services import placement as network_placement
from storage.models import StorageCapacity
from storage.services import placement as storage_placement
from storage.services.placement import Choice, VolumeNeed

LOOKED_AT = 16
MOST_LOOKED_AT = 64
TURNS = 30
ALIKE = 0.02  # hosts whose load differs by less than this are alike: chance decides between them


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

    @property
    def amount(self) -> Amount:
        return Amount(self.cpu, self.memory_bytes)


@dataclass(frozen=True)
class Place:
    """Where an instance goes, and each of its volumes there."""

    host: Host
    choices: tuple[Choice, ...] = ()


class RoomTaken(NoHostFits):
    """Somebody else took the room after it was planned: roll back, plan again."""

    advice = _lazy("Many ask for the same room at once. Try again.")


def reserve(needs: Needs) -> Host:
    """Book CPU and memory on the best host that fits, in the caller's transaction.

    Raises NoHostFits with `reasons`: [{host, name, reason}], one for every host looked at.
    """
    return reserve_all(needs, 1)[0].host


def reserve_all(needs: Needs, count: int) -> list["Place"]:
    """Book CPU and memory for `count` such instances, all or nothing, in the caller's transaction; their volumes are
    planned and not promised yet.

    Raises NoHostFits as `reserve`, and RoomTaken: then the caller rolls back.
    """
    if count > 1:
        places = plan(needs, count)
        counts = Counter(place.host.pk for place in places)
        if not capacity.take_all({host: needs.amount.times(counts[host]) for host in sorted(counts)}):
            raise RoomTaken()
        return places
    for _turn in range(TURNS):
        by_host = {place.host.pk: place for place in plan(needs, 1)}
        if taken := capacity.take_first(list(by_host), needs.amount):
            return [by_host[taken]]
    raise RoomTaken()


def plan(needs: Needs, count: int) -> list["Place"]:
    """Places for `count` such instances, the emptiest hosts first; nothing is booked.

    For one instance these are several hosts to choose from, best first. The number of queries does not grow with the
    number of hosts or instances. Raises NoHostFits, with the reason for each host.
    """
    planned = _Plan(needs)
    for hosts in _pages(planned, min(max(count, LOOKED_AT), MOST_LOOKED_AT)):
        planned.look_at(hosts)
        if count == 1 and planned.candidates:
            return planned.singles()
        if count > 1 and (places := planned.spread(count)) is not None:
            return places
    raise _no_host(planned)


class _Plan:
    """What is known of hosts for one wish, while pages of them are looked at."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.reach = network_placement.reasons_against(needs.l3_networks)
        self.candidates: list[Host] = []
        self._rooms: list[tuple[Host, storage_placement.Rooms]] = []

    def look_at(self, hosts: list[Host]) -> None:
        """Keep those that can really carry the instance."""
        fitting = [host for host in hosts if self.reach(host) is None]
        rooms = storage_placement.Rooms(fitting, self.needs.volumes) if self.needs.volumes else None
        for host in fitting:
            if rooms is None or rooms.reason_against(host, self.needs.volumes) is None:
                self.candidates.append(host)
                if rooms is not None:
                    self._rooms.append((host, rooms))

    def singles(self) -> list[Place]:
        """Each candidate, in order, with where the volumes would go there."""
        rooms = {host.pk: room for host, room in self._rooms}
        found = []
        for host in self.candidates:
            chosen = rooms[host.pk].fit(host, self.needs.volumes) if self.needs.volumes else []
            if chosen is not None:
                found.append(Place(host, tuple(chosen)))
        return found

    def spread(self, count: int) -> list[Place] | None:
        """So many instances, each to the host that is emptiest by then; None when the candidates cannot hold them."""
        rooms = {host.pk: room for host, room in self._rooms}
        for room in {id(room): room for room in rooms.values()}.values():
            room.begin_again()
        loads = [(_load(host, self.needs.amount, 0), number) for number, host in enumerate(self.candidates)]
        heapq.heapify(loads)
        placed, booked = list[Place](), Counter[UUID]()
        while loads and len(placed) < count:
            _weight, number = heapq.heappop(loads)
            host = self.candidates[number]
            if not _has_room(host.capacity, self.needs.amount.times(booked[host.pk] + 1)):
                continue
            chosen = rooms[host.pk].fit(host, self.needs.volumes) if self.needs.volumes else []
            if chosen is None:
                continue
            placed.append(Place(host, tuple(chosen)))
            booked[host.pk] += 1
            heapq.heappush(loads, (_load(host, self.needs.amount, booked[host.pk]), number))
        return placed if len(placed) == count else None


def _has_room(held: HostCapacity, amount: Amount) -> bool:
    has_cpu = held.cpu_used + amount.cpu <= held.cpu_limit
    return bool(has_cpu and held.memory_used_bytes + amount.memory_bytes <= held.memory_limit_bytes)


def _load(host: Host, amount: Amount, more: int) -> float:
    """How full the host is with so many more instances: by memory, then by CPU."""
    held = host.capacity
    memory = (held.memory_used_bytes + more * amount.memory_bytes) / (held.memory_total_bytes or 1)
    return float(memory + 0.1 * (held.cpu_used + more * amount.cpu) / (held.cpu_total or 1))


def _within(needs: Needs) -> Any:
    hosts = Host.objects.select_related("cluster__zone", "agent", "capacity")
    if needs.host:
        hosts = hosts.filter(pk=needs.host.pk)
    if needs.cluster:
        hosts = hosts.filter(cluster=needs.cluster)
    if needs.zone:
        hosts = hosts.filter(cluster__zone=needs.zone)
    return hosts


def _pages(planned: _Plan, size: int) -> Iterator[list[Host]]:
    """Hosts that may have room, the emptiest first, page by page; each page four times the one before."""
    needs = planned.needs
    hosts = (
        _within(needs)
        .taking_work()
        .filter(
            capacity__cpu_limit__gte=F("capacity__cpu_used") + needs.cpu,
            capacity__memory_limit_bytes__gte=F("capacity__memory_used_bytes") + needs.memory_bytes,
        )
    )
    clusters = planned.reach.clusters()
    if clusters is not None:
        hosts = hosts.filter(cluster__in=clusters)
    if needs.volumes:
        most = max(storage_placement.size_bytes(need) for need in needs.volumes)
        hosts = hosts.filter(
            Exists(
                StorageCapacity.objects.filter(
                    host=OuterRef("pk"), is_open=True, limit_bytes__gte=F("used_bytes") + most
                )
            )
        )
    load = _ratio("memory_used_bytes", "memory_total_bytes") + Value(0.1) * _ratio("cpu_used", "cpu_total")
    hosts = hosts.order_by(Round(load / Value(ALIKE)), Random())
    seen: set[UUID] = set()
    while True:
        page = list(hosts.exclude(pk__in=seen)[:size] if seen else hosts[:size])
        if page:
            yield page
        if len(page) < size:
            return
        seen |= {host.pk for host in page}
        size *= 4


def _ratio(used: str, total: str) -> Any:
    return Cast(F(f"capacity__{used}"), FloatField()) / Greatest(
        Cast(F(f"capacity__{total}"), FloatField()), Value(1.0)
    )


# why not


def _no_host(planned: _Plan) -> NoHostFits:
    """What speaks against each host, by then: asked only when there is no place."""
    needs, reasons = planned.needs, []
    hosts = list(_within(needs).order_by("created_at", "uuid"))
    rooms = storage_placement.Rooms(hosts, needs.volumes) if needs.volumes else None
    against_agent = readiness.reasons_against()
    for host in hosts:
        against = _is_away(host) or against_agent(host) or planned.reach(host)
        if against is None and not hasattr(host, "capacity"):
            against = _("Its hardware is not known yet.")
        if against is None and rooms is not None:
            against = rooms.reason_against(host, needs.volumes)
        against = against or _("It has not enough CPU or memory left.")
        reasons.append({"host": str(host.pk), "name": host.name, "reason": str(against)})
    return NoHostFits(
        " ".join(f"{said['name']}: {said['reason']}" for said in reasons[:5]) or _("There is no host there."),
        advice=_("Choose a smaller offering, another zone or cluster, or add a host."),
        reasons=reasons,
    )


def _is_away(host: Host) -> str | None:
    for place in (host, host.cluster, host.cluster.zone):
        if place.availability != Availability.ENABLED:
            return _("%(name)s is %(availability)s.") % {"name": place, "availability": place.availability}
    if host.state != HostState.READY or host.activity:
        return _("The host is still being added.") if host.state != HostState.READY else _("A job is at work on it.")
    return None if host.connection == Connection.CONNECTED else _("The host is %s.") % host.connection
