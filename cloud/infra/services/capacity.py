"""CPU and memory of hosts, promised and given back by conditional updates: never read, then written.

Whoever promises on several hosts in one transaction takes their rows in the order of their uuids.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Greatest
from django.utils.translation import ngettext

from cloud.common import locks
from cloud.config import services as config
from cloud.config.registry import on_change
from cloud.infra.models import Host, HostCapacity

SETTINGS = ("host.cpu_overprovisioning", "host.memory_overprovisioning", "host.reserved_memory")
NAMED = 5
_LOCK = "infra.limits"

# The first host of the list that has room, passing over those that another request is just booking on.
_TAKE_FIRST = """
UPDATE infra_hostcapacity SET cpu_used = cpu_used + %(cpu)s, memory_used_bytes = memory_used_bytes + %(memory)s
WHERE host_id = (
    SELECT held.host_id FROM infra_hostcapacity held
    JOIN unnest(%(hosts)s::uuid[]) WITH ORDINALITY AS wanted(host_id, place) USING (host_id)
    WHERE held.cpu_used + %(cpu)s <= held.cpu_limit AND held.memory_used_bytes + %(memory)s <= held.memory_limit_bytes
    ORDER BY wanted.place LIMIT 1
    FOR NO KEY UPDATE OF held SKIP LOCKED
)
RETURNING host_id
"""


@dataclass(frozen=True)
class Amount:
    """Virtual CPUs and bytes of memory."""

    cpu: int = 0
    memory_bytes: int = 0

    def times(self, count: int) -> "Amount":
        return Amount(self.cpu * count, self.memory_bytes * count)


def _has_room(amount: Amount) -> Q:
    return Q(cpu_limit__gte=F("cpu_used") + amount.cpu) & Q(
        memory_limit_bytes__gte=F("memory_used_bytes") + amount.memory_bytes
    )


def take(host: Host, *, cpu: int, memory_bytes: int) -> bool:
    """Promise this much of a host, in the caller's transaction. False, and nothing changed, when it does not fit."""
    # The totals are read by the update itself: a host that is being deleted has none.
    return bool(
        HostCapacity.objects.filter(_has_room(Amount(cpu, memory_bytes)), host=host).update(
            cpu_used=F("cpu_used") + cpu, memory_used_bytes=F("memory_used_bytes") + memory_bytes
        )
    )


def take_first(hosts: Sequence[UUID], amount: Amount) -> UUID | None:
    """Promise this much of the first of these hosts that has room, in the caller's transaction; None: of no one.

    Those that other requests are booking on this moment come last, so that many at once spread instead of waiting.
    """
    keys = [str(host) for host in hosts]
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_FIRST, {"cpu": amount.cpu, "memory": amount.memory_bytes, "hosts": keys})
        found = cursor.fetchone()
    if found:
        return UUID(str(found[0]))
    return next((host for host in hosts if take_all({host: amount})), None)


def take_all(wanted: Mapping[UUID, Amount]) -> bool:
    """Promise so much of each of these hosts, in the caller's transaction, who rolls back when it is False: then not
    all of them had room."""
    if len(wanted) > 1:
        list(HostCapacity.objects.select_for_update(no_key=True).filter(host__in=wanted).order_by("host"))
    room, cpu, memory = Q(), [], []
    for host, amount in wanted.items():
        room |= Q(host=host) & _has_room(amount)
        cpu.append(When(host=host, then=F("cpu_used") + amount.cpu))
        memory.append(When(host=host, then=F("memory_used_bytes") + amount.memory_bytes))
    taken = HostCapacity.objects.filter(room).update(cpu_used=Case(*cpu), memory_used_bytes=Case(*memory))
    return taken == len(wanted)


def give_back(host: Host, *, cpu: int, memory_bytes: int) -> None:
    """Take a promise back, in the caller's transaction. The caller sees to it that this happens once."""
    HostCapacity.objects.filter(host=host).update(
        cpu_used=Greatest(F("cpu_used") - cpu, Value(0)),
        memory_used_bytes=Greatest(F("memory_used_bytes") - memory_bytes, Value(0)),
    )


@transaction.atomic
def set_totals(host: Host, *, cpu: int, memory_bytes: int) -> None:
    """Note what a host physically has; what is promised stays."""
    totals = {"cpu_total": cpu, "memory_total_bytes": memory_bytes}
    if HostCapacity.objects.filter(host=host).update(**totals):
        return
    locks.share(_LOCK)  # no setting changes between our look at it and our commit
    rules = _rules(config.stored(*SETTINGS), host.pk, host.cluster_id, host.cluster.zone_id)
    HostCapacity.objects.bulk_create([HostCapacity(host=host, **rules)], ignore_conflicts=True)
    HostCapacity.objects.filter(host=host).update(**totals)


def close(host: Host) -> int:
    """Let nothing more be taken of a host; returns the bytes of memory that are promised of it."""
    held = HostCapacity.objects.select_for_update().filter(host=host).first()
    HostCapacity.objects.filter(host=host).update(cpu_total=0, memory_total_bytes=0)
    return held.memory_used_bytes if held else 0


# limits


@transaction.atomic
def write_rules(hosts: QuerySet[Host]) -> list[Host]:
    """Write down the settings that hold for these hosts; returns those on which more is promised than they allow.

    Called when a setting changes, or a host its cluster. What is promised stays; hosts above their limit take no new
    work until enough is given back.
    """
    locks.hold(_LOCK)
    rows = HostCapacity.objects.select_for_update(of=("self",), no_key=True).filter(host__in=hosts).order_by("host")
    places = list(rows.values_list("host", "host__cluster", "host__cluster__zone"))
    read = config.stored(*SETTINGS)
    alike: dict[tuple[tuple[str, Any], ...], list[UUID]] = defaultdict(list)
    for place in places:
        alike[tuple(_rules(read, *place).items())].append(place[0])
    for rules, keys in alike.items():
        HostCapacity.objects.filter(host__in=keys).update(**dict(rules))
    over = Q(capacity__cpu_used__gt=F("capacity__cpu_limit")) | Q(
        capacity__memory_used_bytes__gt=F("capacity__memory_limit_bytes")
    )
    return list(hosts.filter(over))


@on_change(*SETTINGS)
def _setting_changed(name: str, scope_uuid: UUID | None) -> list[Any]:
    hosts = Host.objects.all()
    if scope_uuid is not None:
        hosts = hosts.filter(Q(pk=scope_uuid) | Q(cluster=scope_uuid) | Q(cluster__zone=scope_uuid))
    over = write_rules(hosts)
    if not over:
        return []
    said = ngettext(
        "More is promised on %(count)d host than this allows: %(names)s. It takes no new work until enough is freed.",
        "More is promised on %(count)d hosts than this allows: %(names)s. They take no new work until enough is freed.",
        len(over),
    )
    names = ", ".join(host.name for host in over[:NAMED]) + (", …" if len(over) > NAMED else "")
    return [said % {"count": len(over), "names": names}]


def _rules(read: Callable[..., Any], *places: UUID) -> dict[str, Any]:
    cpu_ratio, memory_ratio, reserved = (read(name, *places) for name in SETTINGS)
    return {"cpu_ratio": cpu_ratio, "memory_ratio": memory_ratio, "reserved_memory_bytes": reserved}


# the books against the rows

Count = Callable[[Collection[UUID]], Mapping[UUID, Amount]]
_counts: list[Count] = []


def counted_by(count: Count) -> Count:
    """Register who knows what is booked on hosts, from the rows it is booked for: {host: amount}."""
    if count not in _counts:
        _counts.append(count)
    return count


@transaction.atomic
def expected(host: Host) -> tuple[Amount, Amount]:
    """What the books say is promised of the host, and what the rows it was promised for add up to.

    Exact, whatever goes on meanwhile: the books of the host are held, and who books writes its row with them.
    """
    held = HostCapacity.objects.select_for_update(no_key=True).filter(host=host).first()
    sums = [count([host.pk]).get(host.pk, Amount()) for count in _counts]
    found = Amount(sum(each.cpu for each in sums), sum(each.memory_bytes for each in sums))
    return (Amount(held.cpu_used, held.memory_used_bytes) if held else Amount()), found


@transaction.atomic
def recount(host: Host) -> bool:
    """Set the books of the host right by the rows; True when they were wrong."""
    written, found = expected(host)
    if written == found:
        return False
    HostCapacity.objects.filter(host=host).update(cpu_used=found.cpu, memory_used_bytes=found.memory_bytes)
    return True
