"""CPU and memory of hosts, promised and given back by conditional updates: never read, then written."""

from dataclasses import dataclass

from django.db.models import F, FloatField, Value
from django.db.models.functions import Cast, Greatest

from cloud.config.services import value
from cloud.infra.models import Host, HostCapacity


@dataclass(frozen=True)
class Limits:
    """What of a host may be promised in all: virtual CPUs and bytes of memory."""

    cpu: int
    memory_bytes: int


@dataclass(frozen=True)
class Rules:
    """The settings that hold for a host: its own, else its cluster's, its zone's or the platform's."""

    cpu_ratio: float
    memory_ratio: float
    reserved_memory_bytes: int


def rules(host: Host) -> Rules:
    scopes = (host, host.cluster, host.cluster.zone)
    return Rules(
        cpu_ratio=value("host.cpu_overprovisioning", *scopes),
        memory_ratio=value("host.memory_overprovisioning", *scopes),
        reserved_memory_bytes=value("host.reserved_memory", *scopes),
    )


def limits(host: Host, held: HostCapacity) -> Limits:
    """What may be promised of a host that has this."""
    rule = rules(host)
    usable = max(0, held.memory_total_bytes - rule.reserved_memory_bytes)
    return Limits(cpu=int(held.cpu_total * rule.cpu_ratio), memory_bytes=int(usable * rule.memory_ratio))


def take(host: Host, *, cpu: int, memory_bytes: int) -> bool:
    """Promise this much of a host, in the caller's transaction. False, and nothing changed, when it does not fit."""
    rule = rules(host)
    # The totals are read by the update itself: a host that is being deleted has none.
    taken = HostCapacity.objects.filter(
        host=host,
        cpu_used__lte=Cast(F("cpu_total"), FloatField()) * rule.cpu_ratio - cpu,
        memory_used_bytes__lte=Cast(F("memory_total_bytes") - rule.reserved_memory_bytes, FloatField())
        * rule.memory_ratio
        - memory_bytes,
    ).update(cpu_used=F("cpu_used") + cpu, memory_used_bytes=F("memory_used_bytes") + memory_bytes)
    return bool(taken)


def give_back(host: Host, *, cpu: int, memory_bytes: int) -> None:
    """Take a promise back, in the caller's transaction. The caller sees to it that this happens once."""
    HostCapacity.objects.filter(host=host).update(
        cpu_used=Greatest(F("cpu_used") - cpu, Value(0)),
        memory_used_bytes=Greatest(F("memory_used_bytes") - memory_bytes, Value(0)),
    )


def set_totals(host: Host, *, cpu: int, memory_bytes: int) -> None:
    """Note what a host physically has; what is promised stays."""
    totals = {"cpu_total": cpu, "memory_total_bytes": memory_bytes}
    HostCapacity.objects.update_or_create(host=host, defaults=totals)


def close(host: Host) -> int:
    """Let nothing more be taken of a host; returns the bytes of memory that are promised of it."""
    held = HostCapacity.objects.select_for_update().filter(host=host).first()
    HostCapacity.objects.filter(host=host).update(cpu_total=0, memory_total_bytes=0)
    return held.memory_used_bytes if held else 0
