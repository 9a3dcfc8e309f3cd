"""The libvirt XML of a domain. https://libvirt.org/formatdomain.html

What is decided for a host (KVM or emulation, where sockets and seed lie, how a disk may be cached) comes in a `Place`;
what the user wants comes in the DomainSpec.
"""

import string
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloud.common.driver import Rejected
from compute.drivers.libvirt import metadata
from compute.drivers.libvirt.elements import document, element, printable
from compute.messages import DomainNic, DomainSpec, DomainVolume

VirtType = Literal["kvm", "qemu", "test"]

AGENT_CHANNEL = "org.qemu.guest_agent.0"
BALLOON_PERIOD_S = 5
VIDEO_MEMORY_KIB = 16384
SERIAL_LIMIT = 20
DISK_LIMIT = 26
# The level x86-64-v2, which current distributions ask for, and all of which QEMU's emulation has.
EMULATED_CPU = "Nehalem"
_BOOT_DEVICES = {"disk": "hd", "cdrom": "cdrom", "network": "network"}


@dataclass(frozen=True)
class DiskPlace:
    """How the host reaches a volume: `kind` file or block, `cache` none where O_DIRECT works, else writeback."""

    kind: Literal["file", "block"] = "file"
    cache: Literal["none", "writeback"] = "none"


@dataclass(frozen=True)
class Place:
    """What the host decides about a domain. Without `emulator` libvirt picks its own; `disks` by volume uuid."""

    virt: VirtType
    vnc: Path
    serial: Path
    seed: Path | None = None
    emulator: str | None = None
    disks: Mapping[str, DiskPlace] = field(default_factory=dict)


def build(spec: DomainSpec, place: Place) -> str:
    """The XML text. Its name is the uuid: instance names are not unique, and libvirt's may not hold every character.

    Raises Rejected when a value has no place in a domain.
    """
    if spec.cpu < 1 or spec.memory_bytes < 1024 or spec.memory_bytes % 1024:
        raise Rejected("invalid_size", "A domain needs at least one CPU, and memory in whole KiB.")
    if len(spec.volumes) > DISK_LIMIT:
        raise Rejected("too_many_volumes", f"A domain takes at most {DISK_LIMIT} volumes.")
    memory_kib = spec.memory_bytes // 1024
    title = printable(spec.name)
    return document(
        element(
            "domain",
            element("name", text=spec.uuid),
            element("uuid", text=spec.uuid),
            element("title", text=title) if title.strip() else None,
            element("metadata", metadata.write(spec)),
            element("memory", text=memory_kib, unit="KiB"),
            element("currentMemory", text=memory_kib, unit="KiB"),
            element("vcpu", text=spec.cpu, placement="static"),
            _os(spec),
            element("features", element("acpi"), element("apic")),
            _cpu(spec, place.virt),
            _clock(place.virt),
            element("on_poweroff", text="destroy"),
            element("on_reboot", text="restart"),
            element("on_crash", text="destroy"),
            _devices(spec, place),
            type_=place.virt,
        )
    )


def _os(spec: DomainSpec) -> ET.Element:
    boot = [element("boot", dev=_BOOT_DEVICES[device]) for device in spec.boot]
    return element("os", element("type", text="hvm", arch="x86_64", machine=spec.machine), *boot)


def _cpu(spec: DomainSpec, virt: VirtType) -> ET.Element | None:
    if virt == "test":
        return None
    topology = element("topology", sockets=1, dies=1, cores=spec.cpu, threads=1)
    if virt == "qemu":
        return element(
            "cpu", element("model", text=EMULATED_CPU, fallback="allow"), topology, mode="custom", match="exact"
        )
    mode = spec.options.get("cpu_mode")
    return element("cpu", topology, mode="host-passthrough" if mode == "host-passthrough" else "host-model")


def _clock(virt: VirtType) -> ET.Element | None:
    if virt == "test":
        return None
    return element(
        "clock",
        element("timer", name="rtc", tickpolicy="catchup"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )


def _devices(spec: DomainSpec, place: Place) -> ET.Element:
    disks = [_disk(v, n, place.disks.get(v.uuid, DiskPlace())) for n, v in enumerate(spec.volumes)]
    return element(
        "devices",
        element("emulator", text=place.emulator) if place.emulator else None,
        *disks,
        *(_seed(place.seed, spec.machine) if place.seed else ()),
        element("controller", type_="usb", model="none"),
        *(_interface(nic) for nic in spec.nics),
        element("channel", element("target", type_="virtio", name=AGENT_CHANNEL), type_="unix"),
        element(
            "serial",
            element("source", mode="bind", path=str(place.serial)),
            element("target", type_="isa-serial", port=0),
            type_="unix",
        ),
        element("graphics", element("listen", type_="socket", socket=str(place.vnc)), type_="vnc"),
        element("video", element("model", type_="vga", vram=VIDEO_MEMORY_KIB)),
        # Virtio and not USB: a USB tablet is polled and costs an idle guest several percent of a core.
        element("input", type_="tablet", bus="virtio"),
        element("memballoon", element("stats", period=BALLOON_PERIOD_S), model="virtio"),
        element("rng", element("backend", text="/dev/urandom", model="random"), model="virtio"),
    )


def _disk(volume: DomainVolume, index: int, disk: DiskPlace) -> ET.Element:
    if volume.format not in ("qcow2", "raw"):
        raise Rejected("volume_format", f"A volume of format {volume.format} cannot be attached; qcow2 and raw can.")
    source = {"file": volume.path} if disk.kind == "file" else {"dev": volume.path}
    serial = volume.serial or volume.uuid.replace("-", "")
    return element(
        "disk",
        element("driver", name="qemu", type_=volume.format, cache=disk.cache, discard="unmap"),
        element("source", **source),
        element("target", dev="vd" + string.ascii_lowercase[index], bus="virtio"),
        element("serial", text=serial[:SERIAL_LIMIT]),
        element("shareable") if volume.is_shareable else None,
        element("readonly") if volume.is_read_only else None,
        _iotune(volume),
        type_=disk.kind,
        device="disk",
    )


def _iotune(volume: DomainVolume) -> ET.Element | None:
    """What the disk may do a second (https://libvirt.org/formatdomain.html#block-i-o-tuning); none without limits."""
    limits = {
        "read_bytes_sec": volume.read_bytes_per_s,
        "write_bytes_sec": volume.write_bytes_per_s,
        "read_iops_sec": volume.read_iops,
        "write_iops_sec": volume.write_iops,
    }
    children = [element(name, text=limit) for name, limit in limits.items() if limit]
    return element("iotune", *children) if children else None


def _seed(seed: Path, machine: str) -> list[ET.Element]:
    """The seed's CD-ROM: IDE, which every system reads at boot; q35 has none, and virtio-scsi instead."""
    target, bus = ("hda", "ide") if machine == "pc" else ("sda", "scsi")
    cdrom = element(
        "disk",
        element("driver", name="qemu", type_="raw"),
        element("source", file=str(seed)),
        element("target", dev=target, bus=bus),
        element("readonly"),
        type_="file",
        device="cdrom",
    )
    return [cdrom] if machine == "pc" else [cdrom, element("controller", type_="scsi", index=0, model="virtio-scsi")]


def _interface(nic: DomainNic) -> ET.Element:
    return element(
        "interface",
        element("mac", address=nic.mac),
        element("source", bridge=nic.bridge),
        element("target", dev=metadata.tap_name(nic.uuid)),
        element("model", type_="virtio"),
        element("mtu", size=nic.mtu) if nic.mtu else None,
        type_="bridge",
    )
