"""What `getAllDomainStats` says, as the contract's DomainStats.

https://libvirt.org/html/libvirt-libvirt-domain.html#virConnectGetAllDomainStats
"""

from collections.abc import Callable, Mapping
from typing import Any

from compute.drivers.base import DiskStats, DomainStats, NicStats
from compute.drivers.libvirt.metadata import Mark

Record = Mapping[str, Any]

_KIB = 1024
_SECOND_NS = 1e9
_VOLUME_TARGET = "vd"  # the seed's CD-ROM is none


def parse(uuid: str, record: Record, mark: Mark) -> DomainStats:
    """One domain's record. A field that this libvirt or guest does not report stays None, or out of its list."""
    return DomainStats(
        uuid=uuid,
        project=mark.project,
        cpu_count=record.get("vcpu.current"),
        cpu_seconds=_scaled(record.get("cpu.time"), 1 / _SECOND_NS),
        vcpu_seconds={
            index: record[f"vcpu.{index}.time"] / _SECOND_NS
            for index in range(int(record.get("vcpu.maximum", 0)))
            if f"vcpu.{index}.time" in record
        },
        memory_total_bytes=_bytes(record.get("balloon.current")),
        memory_free_bytes=_bytes(record.get("balloon.usable", record.get("balloon.unused"))),
        memory_resident_bytes=_bytes(record.get("balloon.rss")),
        disks=tuple(_disks(record)),
        nics=tuple(_nics(record, mark)),
    )


def _disks(record: Record) -> list[DiskStats]:
    disks = []
    for index in range(int(record.get("block.count", 0))):
        value = _reader(record, f"block.{index}.")
        device = str(record.get(f"block.{index}.name", ""))
        if device.startswith(_VOLUME_TARGET):
            disks.append(DiskStats(device, value("rd.bytes"), value("rd.reqs"), value("wr.bytes"), value("wr.reqs")))
    return disks


def _nics(record: Record, mark: Mark) -> list[NicStats]:
    nics = []
    for index in range(int(record.get("net.count", 0))):
        value = _reader(record, f"net.{index}.")
        tap = str(record.get(f"net.{index}.name", ""))
        counters = [value(f"{way}.{what}") for way in ("rx", "tx") for what in ("bytes", "pkts", "errs")]
        nics.append(NicStats(mark.nics.get(tap, tap), *counters))
    return nics


def _reader(record: Record, prefix: str) -> Callable[[str], int]:
    return lambda name: int(record.get(prefix + name, 0))


def _bytes(kib: Any) -> int | None:
    return None if kib is None else int(kib) * _KIB


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor
