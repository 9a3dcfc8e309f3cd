"""What is measured: every series of the metric store, by name, unit and kind.

Pure data on the standard library, so that agents, tests and documents read the same list. An agent pushes Influx lines
`<measurement>,<tags> <field>=<number>,…`; the store names the series `<measurement>_<field>`. A value that is not known
is left out of its line, never sent as 0.

The names of the system that Mica succeeds (`ZStack/VM` …) are aliases: `resolve("ZStack/Host", "MemoryUsedBytes")`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


def gettext_noop(text: str) -> str:
    """Mark a title for translation; it is translated where it is shown, as this file knows no Django."""
    return text


class Kind(StrEnum):
    """How a series is read: a gauge as it is, a counter through `rate()`."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Unit(StrEnum):
    """Unit of the raw series; a counter's rate is this unit a second."""

    PERCENT = "percent"
    BYTES = "bytes"
    SECONDS = "seconds"
    COUNT = "count"


@dataclass(frozen=True)
class Field:
    """One field of a measurement. `aliases` are metric names of reference.md A5, in the measurement's namespace."""

    name: str
    unit: Unit
    kind: Kind
    title: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One Influx line: the resource it describes, its tags and its fields.

    `tags[0]` holds the resource's uuid. Tags after the resource's own name a part of it (core, device, nic).
    """

    name: str
    resource: str
    tags: tuple[str, ...]
    fields: tuple[Field, ...]
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One series family as a reader of the catalogue sees it."""

    name: str
    resource: str
    title: str
    unit: Unit
    kind: Kind
    labels: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def expression(self) -> str:
        """PromQL that gives the value to show: the series, or its rate over a minute for a counter."""
        return self.name if self.kind is Kind.GAUGE else f"rate({self.name}[1m])"


def _gauge(name: str, unit: Unit, title: str, *aliases: str) -> Field:
    return Field(name, unit, Kind.GAUGE, title, aliases)


def _counter(name: str, unit: Unit, title: str, *aliases: str) -> Field:
    return Field(f"{name}_total", unit, Kind.COUNTER, title, aliases)


_ = gettext_noop
_PERCENT, _BYTES, _SECONDS, _COUNT = Unit.PERCENT, Unit.BYTES, Unit.SECONDS, Unit.COUNT

_CPU_USED = _gauge("cpu_used_percent", _PERCENT, _("CPU used"), "CPUAverageUsedUtilization", "CPUAllUsedUtilization")
_CPU_COUNT = _gauge("cpu_count", _COUNT, _("CPUs"))
_MEMORY = (
    _gauge("memory_total_bytes", _BYTES, _("Memory")),
    _gauge("memory_used_bytes", _BYTES, _("Memory used"), "MemoryUsedBytes"),
    _gauge("memory_free_bytes", _BYTES, _("Memory free"), "MemoryFreeBytes"),
    _gauge("memory_used_percent", _PERCENT, _("Memory used, share"), "MemoryUsedInPercent"),
    _gauge("memory_free_percent", _PERCENT, _("Memory free, share"), "MemoryFreeInPercent"),
)
_DISK_ALL_IO = (
    _counter("disk_all_read_bytes", _BYTES, _("Disk read, all disks"), "DiskAllReadBytes"),
    _counter("disk_all_write_bytes", _BYTES, _("Disk written, all disks"), "DiskAllWriteBytes"),
    _counter("disk_all_read_ops", _COUNT, _("Disk reads, all disks"), "DiskAllReadOps"),
    _counter("disk_all_write_ops", _COUNT, _("Disk writes, all disks"), "DiskAllWriteOps"),
)
_DISK_IO = (
    _counter("read_bytes", _BYTES, _("Disk read"), "DiskReadBytes"),
    _counter("write_bytes", _BYTES, _("Disk written"), "DiskWriteBytes"),
    _counter("read_ops", _COUNT, _("Disk reads"), "DiskReadOps"),
    _counter("write_ops", _COUNT, _("Disk writes"), "DiskWriteOps"),
)
_NETWORK_ALL = (
    _counter("network_all_in_bytes", _BYTES, _("Network in, all cards"), "NetworkAllInBytes"),
    _counter("network_all_out_bytes", _BYTES, _("Network out, all cards"), "NetworkAllOutBytes"),
    _counter("network_all_in_packets", _COUNT, _("Packets in, all cards"), "NetworkAllInPackets"),
    _counter("network_all_out_packets", _COUNT, _("Packets out, all cards"), "NetworkAllOutPackets"),
    _counter("network_all_in_errors", _COUNT, _("Receive errors, all cards"), "NetworkAllInErrors"),
    _counter("network_all_out_errors", _COUNT, _("Send errors, all cards"), "NetworkAllOutErrors"),
)
_NETWORK = (
    _counter("in_bytes", _BYTES, _("Network in"), "NetworkInBytes"),
    _counter("out_bytes", _BYTES, _("Network out"), "NetworkOutBytes"),
    _counter("in_packets", _COUNT, _("Packets in"), "NetworkInPackets"),
    _counter("out_packets", _COUNT, _("Packets out"), "NetworkOutPackets"),
    _counter("in_errors", _COUNT, _("Receive errors"), "NetworkInErrors"),
    _counter("out_errors", _COUNT, _("Send errors"), "NetworkOutErrors"),
)
_CORE = (_gauge("used_percent", _PERCENT, _("Core used"), "CPUUsedUtilization"),)
_MACHINE = (
    _CPU_USED,
    _CPU_COUNT,
    _gauge("cpu_user_percent", _PERCENT, _("CPU in programs"), "CPUAverageUserUtilization"),
    _gauge("cpu_system_percent", _PERCENT, _("CPU in the kernel"), "CPUAverageSystemUtilization"),
    _gauge("cpu_wait_percent", _PERCENT, _("CPU waiting for disks"), "CPUAverageWaitUtilization"),
    _gauge("cpu_idle_percent", _PERCENT, _("CPU idle"), "CPUAverageIdleUtilization"),
    _gauge("load1_count", _COUNT, _("Load, 1 minute")),
    _gauge("uptime_seconds", _SECONDS, _("Up since boot")),
    *_MEMORY,
    *_DISK_ALL_IO,
    _gauge("disk_root_used_bytes", _BYTES, _("Root file system used"), "DiskRootUsedCapacityInBytes"),
    _gauge("disk_root_used_percent", _PERCENT, _("Root file system used, share"), "DiskRootUsedCapacityInPercent"),
    _gauge("disk_platform_used_bytes", _BYTES, _("Platform's own files"), "DiskZStackUsedCapacityInBytes"),
    _gauge("disk_platform_used_percent", _PERCENT, _("Platform's files, share"), "DiskZStackUsedCapacityInPercent"),
    _gauge("disk_all_total_bytes", _BYTES, _("File systems")),
    _gauge("disk_all_used_bytes", _BYTES, _("File systems used"), "DiskAllUsedCapacityInBytes"),
    _gauge("disk_all_used_percent", _PERCENT, _("File systems used, share"), "DiskAllUsedCapacityInPercent"),
    *_NETWORK_ALL,
)
_VM_TAGS = ("instance", "project", "host")
_HOST_NAMES, _VM_NAMES = ("ZStack/Host",), ("ZStack/VM",)

MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement("mica_host", "host", ("host",), _MACHINE, _HOST_NAMES),
    Measurement("mica_host_core", "host", ("host", "core"), _CORE, _HOST_NAMES),
    Measurement("mica_host_disk", "host", ("host", "device"), _DISK_IO, _HOST_NAMES),
    Measurement("mica_host_network", "host", ("host", "device"), _NETWORK, _HOST_NAMES),
    Measurement("mica_image_server", "image_server", ("image_server",), _MACHINE, ("ZStack/BackupStorage",)),
    Measurement(
        "mica_instance",
        "instance",
        _VM_TAGS,
        (
            _CPU_USED,
            _CPU_COUNT,
            _counter("cpu_seconds", _SECONDS, _("CPU time")),
            *_MEMORY,
            _gauge("memory_resident_bytes", _BYTES, _("Host memory taken")),
            *_DISK_ALL_IO,
            *_NETWORK_ALL,
        ),
        _VM_NAMES,
    ),
    Measurement("mica_instance_core", "instance", (*_VM_TAGS, "core"), _CORE, _VM_NAMES),
    Measurement("mica_instance_disk", "instance", (*_VM_TAGS, "device"), _DISK_IO, _VM_NAMES),
    Measurement("mica_instance_network", "instance", (*_VM_TAGS, "nic"), _NETWORK, _VM_NAMES),
)


def _metrics() -> Iterator[Metric]:
    for measurement in MEASUREMENTS:
        for field in measurement.fields:
            yield Metric(
                name=f"{measurement.name}_{field.name}",
                resource=measurement.resource,
                title=field.title,
                unit=field.unit,
                kind=field.kind,
                labels=measurement.tags,
                aliases=tuple(f"{space}/{alias}" for space in measurement.namespaces for alias in field.aliases),
            )


METRICS: tuple[Metric, ...] = tuple(_metrics())
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
BY_ALIAS: dict[str, Metric] = {alias: metric for metric in METRICS for alias in metric.aliases}


def resolve(namespace: str, name: str) -> Metric:
    """The metric that an old name stands for.

    Raises KeyError when the catalogue has no such alias.
    """
    return BY_ALIAS[f"{namespace}/{name}"]
