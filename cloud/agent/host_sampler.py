"""The machine's own numbers, by psutil, as monitoring's catalogue names them."""

import os
import time
from pathlib import Path
from typing import Any

import psutil

from cloud.agent.registry import Machine, Sample

FOLDERS_EVERY_S = 60.0
UNTOLD_DISKS = ("loop", "ram", "zram", "sr", "fd")
Fields = dict[str, int | float]


class HostSampler:
    """Remembers the last reading of the processor times, which percentages are of; the first sample has none."""

    def __init__(self) -> None:
        self._times: Any = None
        self._core_times: Any = None
        self._folders_at = -FOLDERS_EVERY_S
        self._folder_bytes = 0

    def sample(self, machine: Machine) -> list[Sample]:
        measurement = "mica_image_server" if machine.kind == "image_server" else "mica_host"
        tags = {"image_server" if machine.kind == "image_server" else "host": machine.uuid}
        fields: Fields = {
            "uptime_seconds": int(time.time() - psutil.boot_time()),
            "load1_count": psutil.getloadavg()[0],
        }
        fields |= self._processor() | _memory() | self._disk_room(machine)
        parts = self._cores(tags)
        devices = {k: v for k, v in psutil.disk_io_counters(perdisk=True).items() if _is_whole_disk(k)}
        for device, counted in devices.items():
            parts.append(Sample("mica_host_disk", {**tags, "device": device}, _disk_fields("", counted)))
        fields |= _total([_disk_fields("disk_all_", c) for c in devices.values()])
        nics = {k: v for k, v in psutil.net_io_counters(pernic=True).items() if k != "lo"}
        for device, moved in nics.items():
            parts.append(Sample("mica_host_network", {**tags, "device": device}, _network_fields("", moved)))
        # Only what leaves the machine: bridges, taps and tunnels would count the same bytes again.
        outer = [moved for name, moved in nics.items() if _is_outer(name)]
        fields |= _total([_network_fields("network_all_", moved) for moved in outer])
        return [Sample(measurement, tags, fields), *(parts if measurement == "mica_host" else [])]

    def _processor(self) -> Fields:
        before, self._times = self._times, psutil.cpu_times()
        fields: Fields = {"cpu_count": psutil.cpu_count() or 1}
        if before is None or (shares := _shares(before, self._times)) is None:
            return fields
        idle, wait = shares["idle"], shares.get("iowait", 0.0)
        fields |= {
            "cpu_used_percent": round(max(0.0, 100.0 - idle - wait), 2),
            "cpu_user_percent": round(shares["user"] + shares.get("nice", 0.0), 2),
            "cpu_system_percent": round(shares["system"], 2),
            "cpu_wait_percent": round(wait, 2),
            "cpu_idle_percent": round(idle, 2),
        }
        return fields

    def _cores(self, tags: dict[str, str]) -> list[Sample]:
        before, self._core_times = self._core_times, psutil.cpu_times(percpu=True)
        samples = []
        for number, (old, new) in enumerate(zip(before or [], self._core_times, strict=False)):
            if shares := _shares(old, new):
                used = round(max(0.0, 100.0 - shares["idle"] - shares.get("iowait", 0.0)), 2)
                samples.append(Sample("mica_host_core", {**tags, "core": str(number)}, {"used_percent": used}))
        return samples

    def _disk_room(self, machine: Machine) -> Fields:
        total, used = _file_systems()
        root = psutil.disk_usage("/")
        if time.monotonic() - self._folders_at >= FOLDERS_EVERY_S:
            self._folders_at = time.monotonic()
            folders = {machine.state_dir, *machine.resources.get("platform_paths", ())}
            self._folder_bytes = sum(_taken_bytes(folder) for folder in folders)
        fields: Fields = {
            "disk_root_used_bytes": root.used,
            "disk_root_used_percent": root.percent,
            "disk_platform_used_bytes": self._folder_bytes,
            "disk_all_total_bytes": total,
            "disk_all_used_bytes": used,
        }
        if total:
            fields["disk_platform_used_percent"] = round(100 * self._folder_bytes / total, 2)
            fields["disk_all_used_percent"] = round(100 * used / total, 2)
        return fields


def _memory() -> Fields:
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    used_percent = round(100 * used / memory.total, 2)
    return {
        "memory_total_bytes": memory.total,
        "memory_used_bytes": used,
        "memory_free_bytes": memory.available,
        "memory_used_percent": used_percent,
        "memory_free_percent": round(100 - used_percent, 2),
    }


def _shares(old: Any, new: Any) -> dict[str, float] | None:
    """Percent of the time between two readings of processor times, by kind; None when no time has passed."""
    # Guest time is counted as user time already.
    names = [name for name in new._fields if name not in ("guest", "guest_nice")]
    spent = {name: max(0.0, getattr(new, name) - getattr(old, name)) for name in names}
    total = sum(spent.values())
    return {name: 100 * seconds / total for name, seconds in spent.items()} if total > 0 else None


def _disk_fields(prefix: str, counted: Any) -> Fields:
    return {
        f"{prefix}read_bytes_total": counted.read_bytes,
        f"{prefix}write_bytes_total": counted.write_bytes,
        f"{prefix}read_ops_total": counted.read_count,
        f"{prefix}write_ops_total": counted.write_count,
    }


def _network_fields(prefix: str, moved: Any) -> Fields:
    return {
        f"{prefix}in_bytes_total": moved.bytes_recv,
        f"{prefix}out_bytes_total": moved.bytes_sent,
        f"{prefix}in_packets_total": moved.packets_recv,
        f"{prefix}out_packets_total": moved.packets_sent,
        f"{prefix}in_errors_total": moved.errin,
        f"{prefix}out_errors_total": moved.errout,
    }


def _total(parts: list[Fields]) -> Fields:
    total: Fields = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def _is_whole_disk(name: str) -> bool:
    return not name.startswith(UNTOLD_DISKS) and os.path.exists(f"/sys/block/{name}")


def _is_outer(name: str) -> bool:
    """A card of the machine, not a device made on it: those have no `device`, except veth ends of a lab's machine."""
    path = Path("/sys/class/net", name)
    return not any((path / part).exists() for part in ("bridge", "tun_flags", "brport")) and not name.startswith("vx-")


def _file_systems() -> tuple[int, int]:
    """Total and used bytes of all file systems on block devices, each device counted once."""
    sizes: dict[str, tuple[int, int]] = {}
    for part in psutil.disk_partitions(all=False):
        if part.device in sizes or part.device.startswith("/dev/loop"):
            continue
        try:
            usage = psutil.disk_usage(part.mountpoint)
        except OSError:
            continue
        sizes[part.device] = (usage.total, usage.used)
    if not sizes:
        usage = psutil.disk_usage("/")
        return usage.total, usage.used
    return sum(total for total, _ in sizes.values()), sum(used for _, used in sizes.values())


def _taken_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on disk; what vanishes meanwhile is not counted."""
    total = 0
    for parent, _, names in os.walk(folder, onerror=lambda _error: None):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total
