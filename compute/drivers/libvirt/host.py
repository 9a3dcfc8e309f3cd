"""What one host decides about its domains: directories of their sockets, seeds, how a volume is opened, bridges.

QEMU runs as a user of its own on ordinary hosts: the directories of its sockets belong to that user, and to root.
"""

import errno
import os
import shutil
import socket
import stat
import uuid as uuids
import xml.etree.ElementTree as ET
from pathlib import Path

from cloud.common.driver import Rejected, Transient
from compute.drivers import nocloud
from compute.drivers.libvirt.domain_xml import DiskPlace, Place, VirtType
from compute.messages import DomainSpec, DomainVolume


def canonical(uuid: str) -> str:
    """The uuid in its one spelling, fit for a file name. Raises Rejected (`invalid_uuid`)."""
    try:
        return str(uuids.UUID(uuid))
    except ValueError as error:
        raise Rejected("invalid_uuid", f"{uuid!r} is no uuid.") from error


class HostFiles:
    """The files of domains on this host, apart from volumes, and what is known of volumes before a start."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._roots = (state_dir, run_dir)
        self._seeds = state_dir / "seeds"
        self._vnc = run_dir / "vnc"
        self._serial = run_dir / "serial"
        self._owner: tuple[int, int] = (0, 0)

    def give_to(self, owner: tuple[int, int]) -> None:
        """The user and group that QEMU runs as."""
        self._owner = owner

    def vnc(self, uuid: str) -> Path:
        return self._vnc / f"{uuid}.sock"

    def serial(self, uuid: str) -> Path:
        return self._serial / f"{uuid}.sock"

    def seed(self, uuid: str) -> Path:
        return self._seeds / f"{uuid}.iso"

    def prepare(self, spec: DomainSpec, virt: VirtType) -> Place:
        """Make what the domain needs on this host. Raises Rejected, Transient (`bridge_missing`: it is being made)."""
        self._let_qemu_in()
        disks = {volume.uuid: disk_place(volume) for volume in spec.volumes}
        for nic in spec.nics:
            if not _has_interface(nic.bridge):
                raise Transient("bridge_missing", f"The network bridge {nic.bridge} is not there (yet).")
        seed = self.seed(spec.uuid) if spec.seed else None
        if seed:
            nocloud.write(spec, seed)
        return Place(virt, self.vnc(spec.uuid), self.serial(spec.uuid), seed, disks=disks)

    def _let_qemu_in(self) -> None:
        """Sockets are QEMU's to make; it may pass through the agent's directories to them, and list nothing there."""
        for directory in (self._vnc, self._serial, self._seeds):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self._vnc, self._serial):
            directory.chmod(0o700)
            os.chown(directory, *self._owner)
        user, group = self._owner
        for directory in (*self._roots, self._seeds) if user else ():
            os.chown(directory, -1, group)
            directory.chmod(0o710)

    def remove(self, uuid: str) -> None:
        """Delete what `prepare` and QEMU made; absent is fine."""
        for path in (self.vnc(uuid), self.serial(uuid), self.seed(uuid)):
            path.unlink(missing_ok=True)


def disk_place(volume: DomainVolume) -> DiskPlace:
    """How to open a volume. Without O_DIRECT (tmpfs, some network file systems) the page cache must serve.

    Raises Rejected (`volume_missing`).
    """
    path = Path(volume.path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        detail = f"The volume {volume.uuid} is not at {volume.path}: {error.strerror}."
        raise Rejected("volume_missing", detail) from error
    return DiskPlace("block" if stat.S_ISBLK(mode) else "file", "none" if _opens_directly(path) else "writeback")


def _opens_directly(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENOTSUP)
    return True


def qemu_user(capabilities: str) -> tuple[int, int]:
    """The numeric user and group of QEMU processes, from libvirt's capabilities; root where they say nothing."""
    for model in _parsed(capabilities).iterfind("host/secmodel"):
        if model.findtext("model") != "dac":
            continue
        for label in model.iterfind("baselabel"):
            user, _, group = (label.text or "").partition(":")
            if user.lstrip("+").isdigit() and group.lstrip("+").isdigit():
                return int(user.lstrip("+")), int(group.lstrip("+"))
    return 0, 0


def emulator(capabilities: str) -> str:
    """The QEMU binary that libvirt uses for x86-64 guests."""
    for guest in _parsed(capabilities).iterfind("guest/arch[@name='x86_64']"):
        if found := guest.findtext("emulator"):
            return found
    return shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64"


def _has_interface(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _parsed(capabilities: str) -> ET.Element:
    return ET.fromstring(capabilities)  # noqa: S314 (written by libvirt)
