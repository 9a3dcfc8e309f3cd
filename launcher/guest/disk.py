"""The guest's disk: an MBR, a FAT partition that boots by syslinux, and an ext4 root. No loop device, no mount."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from launcher.guest.commands import EPOCH, BuildError, copy_into, run

SECTOR = 512
MIB = 1 << 20
VIRTUAL_SIZE_BYTES = 1 << 30
ROOT_LABEL = "mica-root"  # the initramfs looks for it
_DISK_ID, _ROOT_ID, _HASH_SEED = (
    "0x4d494341",
    "4d494341-0000-4000-8000-000000000001",
    "4d494341-0000-4000-8000-000000000002",
)

# A guest of 128 MiB cannot spare the 64 MiB that swiotlb takes where memory may be added; 2 MiB still serve a disk with
# 32-bit DMA. The rest makes emulated machines start quicker; mitigations guard nobody under emulation.
COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200 quiet panic=5 swiotlb=1024 "
    "mitigations=off nokaslr tsc=reliable no_timer_check audit=0"
)
BOOT_MENU = f"""\
DEFAULT mica
PROMPT 0
TIMEOUT 0
LABEL mica
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND {COMMAND_LINE}
"""
_MBR_PLACES = ("/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/SYSLINUX/mbr.bin", "/usr/share/syslinux/mbr.bin")


def _entry(name: str, number: int, mode: int, data: bytes) -> Iterator[bytes]:
    """One member of a `newc` archive, owned by root.

    https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html
    """
    encoded = name.encode() + b"\0"
    numbers = (number, mode, 0, 0, 1, EPOCH, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in numbers) + encoded
    yield head + b"\0" * (-len(head) % 4)
    yield data + b"\0" * (-len(data) % 4)


def initramfs(tree: Path, out: Path) -> None:
    """Pack a tree as a compressed initramfs: directories, files and links, all owned by root."""
    with out.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=EPOCH, filename="") as packed:
        for number, path in enumerate(sorted(tree.rglob("*")), 1):
            mode = path.lstat().st_mode
            link, plain = stat.S_ISLNK(mode), stat.S_ISREG(mode)
            data = os.readlink(path).encode() if link else path.read_bytes() if plain else b""
            packed.writelines(_entry(str(path.relative_to(tree)), number, mode, data))
        packed.writelines(_entry("TRAILER!!!", 0, 0, b""))


def _boot_partition(work: Path, kernel: Path, early: Path, start: int) -> Path:
    """A FAT16 image that starts at sector `start` of its disk, with kernel, initramfs and syslinux."""
    image, menu = work / "boot.img", work / "syslinux.cfg"
    menu.write_text(BOOT_MENU)
    size = (kernel.stat().st_size + early.stat().st_size + 6 * MIB) // MIB * MIB
    with image.open("wb") as file:
        file.truncate(max(size, 16 * MIB))
    run("mkfs.vfat", "--invariant", "-F16", "-n", "MICABOOT", "-h", str(start), image)
    for source, name in ((kernel, "vmlinuz"), (early, "initrd.gz"), (menu, "syslinux.cfg")):
        run("mcopy", "-i", image, source, f"::{name}")
    run("syslinux", "--install", image)
    return image


def _root_partition(work: Path, tree: Path) -> Path:
    """An ext4 image with the tree and some free space; it grows to its disk when the guest boots."""
    image, block = work / "root.img", 4096
    used = sum(-(-path.lstat().st_size // block) * block for path in tree.rglob("*"))
    with image.open("wb") as file:
        file.truncate((used + 40 * MIB) // MIB * MIB)
    identity = ("-L", ROOT_LABEL, "-U", _ROOT_ID, "-E", f"hash_seed={_HASH_SEED},lazy_itable_init=0,root_owner=0:0")
    # No metadata_csum: the initramfs would have to carry crc32c. Blocks and inodes as on a disk of ordinary size.
    shape = ("-T", "default", "-b", str(block), "-i", "8192", "-O", "^metadata_csum", "-m", "0")
    run("mke2fs", "-q", "-t", "ext4", *shape, *identity, "-d", tree, image)
    return image


def _mbr() -> bytes:
    for place in map(Path, _MBR_PLACES):
        if place.is_file():
            return place.read_bytes()[:440]
    raise BuildError("syslinux' mbr.bin was not found: apt-get install syslinux-common.")


def bootable(out: Path, work: Path, *, kernel: Path, early: Path, tree: Path) -> None:
    """Write a bootable qcow2 of 1 GiB with this kernel, initramfs and root tree. Raises BuildError."""
    mbr, boot_start = _mbr(), MIB // SECTOR
    boot = _boot_partition(work, kernel, early, boot_start)
    root = _root_partition(work, tree)
    boot_sectors, root_sectors = boot.stat().st_size // SECTOR, root.stat().st_size // SECTOR
    root_start = boot_start + boot_sectors
    disk = work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate((root_start + root_sectors) * SECTOR)
    table = (
        f"label: dos\nlabel-id: {_DISK_ID}\n"
        f"start={boot_start}, size={boot_sectors}, type=6, bootable\n"
        f"start={root_start}, size={root_sectors}, type=83\n"
    )
    run("sfdisk", "-q", disk, feed=table.encode())
    copy_into(disk, boot, boot_start * SECTOR)
    copy_into(disk, root, root_start * SECTOR)
    with disk.open("r+b") as file:
        file.write(mbr)
    ready = out.with_name(out.name + ".new")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", disk, ready)
    run("qemu-img", "resize", "-q", "-f", "qcow2", ready, str(VIRTUAL_SIZE_BYTES))
    ready.replace(out)
