"""Samples of all running instances, as monitoring's catalogue names them."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cloud.agent.registry import Sample
from compute.drivers.base import DiskStats, DomainStats, NicStats

Fields = dict[str, int | float]


@dataclass(frozen=True)
class Reading:
    """CPU seconds of a domain at a moment (time.monotonic())."""

    at: float
    cpu_seconds: float | None
    vcpu_seconds: Mapping[int, float]


@dataclass
class Sampler:
    """Remembers each domain's last reading, which percentages are of; a domain's first sample has none."""

    host: str
    _readings: dict[str, Reading] = field(default_factory=dict)

    def samples(self, domains: Iterable[DomainStats], now: float | None = None) -> list[Sample]:
        """One line per instance, and one for each of its cores, disks and network cards."""
        at = time.monotonic() if now is None else now
        fresh: dict[str, Reading] = {}
        samples: list[Sample] = []
        for domain in domains:
            fresh[domain.uuid] = Reading(at, domain.cpu_seconds, domain.vcpu_seconds)
            samples += self._of(domain, self._readings.get(domain.uuid), at)
        self._readings = fresh
        return samples

    def _of(self, domain: DomainStats, before: Reading | None, at: float) -> list[Sample]:
        tags = {"instance": domain.uuid, "project": domain.project, "host": self.host}
        fields = _cpu(domain, before, at) | _memory(domain)
        fields |= _summed("disk_all_", [_disk(disk) for disk in domain.disks])
        fields |= _summed("network_all_", [_nic(nic) for nic in domain.nics])
        samples = [Sample("mica_instance", tags, fields)]
        samples += _cores(domain, before, at, tags)
        samples += [Sample("mica_instance_disk", {**tags, "device": d.device}, _disk(d)) for d in domain.disks]
        samples += [Sample("mica_instance_network", {**tags, "nic": n.nic}, _nic(n)) for n in domain.nics]
        return samples


def _cpu(domain: DomainStats, before: Reading | None, at: float) -> Fields:
    fields: Fields = {}
    if domain.cpu_count is not None:
        fields["cpu_count"] = domain.cpu_count
    if domain.cpu_seconds is None:
        return fields
    fields["cpu_seconds_total"] = round(domain.cpu_seconds, 3)
    if domain.cpu_count and before and before.cpu_seconds is not None:
        share = _percent(before.cpu_seconds, domain.cpu_seconds, (at - before.at) * domain.cpu_count)
        if share is not None:
            fields["cpu_used_percent"] = share
    return fields


def _cores(domain: DomainStats, before: Reading | None, at: float, tags: dict[str, str]) -> list[Sample]:
    samples = []
    for core, seconds in domain.vcpu_seconds.items():
        if before and core in before.vcpu_seconds:
            share = _percent(before.vcpu_seconds[core], seconds, at - before.at)
            if share is not None:
                samples.append(Sample("mica_instance_core", {**tags, "core": str(core)}, {"used_percent": share}))
    return samples


def _percent(old: float, new: float, elapsed_s: float) -> float | None:
    """Share of the time used, at most 100; None when no time has passed or the domain was started anew meanwhile."""
    if elapsed_s <= 0 or new < old:
        return None
    return round(min(100.0, 100.0 * (new - old) / elapsed_s), 2)


def _memory(domain: DomainStats) -> Fields:
    fields: Fields = {}
    total, free = domain.memory_total_bytes, domain.memory_free_bytes
    if domain.memory_resident_bytes is not None:
        fields["memory_resident_bytes"] = domain.memory_resident_bytes
    if total is None:
        return fields
    fields["memory_total_bytes"] = total
    if free is not None and total > 0:
        free = min(free, total)
        free_percent = round(100.0 * free / total, 2)
        fields |= {
            "memory_free_bytes": free,
            "memory_used_bytes": total - free,
            "memory_free_percent": free_percent,
            "memory_used_percent": round(100.0 - free_percent, 2),
        }
    return fields


def _disk(disk: DiskStats) -> Fields:
    return {
        "read_bytes_total": disk.read_bytes,
        "write_bytes_total": disk.write_bytes,
        "read_ops_total": disk.read_ops,
        "write_ops_total": disk.write_ops,
    }


def _nic(nic: NicStats) -> Fields:
    return {
        "in_bytes_total": nic.in_bytes,
        "out_bytes_total": nic.out_bytes,
        "in_packets_total": nic.in_packets,
        "out_packets_total": nic.out_packets,
        "in_errors_total": nic.in_errors,
        "out_errors_total": nic.out_errors,
    }


def _summed(prefix: str, parts: list[Fields]) -> Fields:
    total: Fields = {}
    for part in parts:
        for name, value in part.items():
            total[prefix + name] = total.get(prefix + name, 0) + value
    return total
