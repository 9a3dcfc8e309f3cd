"""What a disk file is, by its own first bytes: what a stranger's file claims is never tried out on a prober."""

import re
import struct
from pathlib import Path

from cloud.common.driver import Rejected

_ISO_AT = 0x8001
_HEAD = 0x8006 + 64

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_FOREIGN = {b"QED\0": "qed", b"LUKS\xba\xbe": "luks", b"<<< ": "vdi"}
_VMDK_KINDS = {b"monolithicSparse", b"streamOptimized"}
_QCOW2_EXTERNAL_DATA = 1 << 2


def detect(path: Path) -> str:
    """The format of a file: qcow2, vmdk, vhdx, vpc, iso or raw.

    Raises Rejected for what is no disk (`not_an_image`, `image_compressed`) or cannot be taken (`format_unsupported`).
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    size = path.stat().st_size
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise Rejected("image_compressed", f"The file is compressed with {name}; give the plain image's address.")
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise Rejected("format_unsupported", f"Images of the format {name} are not supported.")
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith((b"KDMV", b"COWD")) or head.lstrip().startswith(b"# Disk DescriptorFile"):
        return "vmdk"
    if head.startswith(b"vhdxfile"):
        return "vhdx"
    if head.startswith(b"conectix") or _ends_with_vpc_footer(path, size):
        return "vpc"
    if head[_ISO_AT : _ISO_AT + 5] == b"CD001":
        return "iso"
    if re.match(rb"\s*(<!doctype|<html|<\?xml|\{|<head)", head[:256], re.IGNORECASE):
        raise Rejected("not_an_image", "The address answers with a text document, not with a disk image.")
    if size == 0 or size % 512:
        raise Rejected("not_an_image", f"The file is no disk image: {size} bytes are not a whole number of sectors.")
    return "raw"


def refuse_links(path: Path, form: str) -> None:
    """Refuse an image that names other files: reading it would read what lies on the server.

    Raises Rejected `image_refers_outside` or `image_encrypted`. Sources: qemu docs/interop/qcow2.txt (header), VMware
    Virtual Disk Format 5.0 (descriptor).
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if form == "qcow2":
        _refuse_qcow2_links(head)
    elif form == "vmdk":
        kind = re.search(rb'createType="([^"]*)"', head)
        if not head.startswith(b"KDMV") or kind is None or kind.group(1) not in _VMDK_KINDS:
            raise Rejected(
                "image_refers_outside",
                "Of VMDK only streamOptimized and monolithicSparse are taken.",
            )


def _refuse_qcow2_links(head: bytes) -> None:
    if len(head) < 72 or (head[7] == 3 and len(head) < 104):
        raise Rejected("image_broken", "The qcow2 header is cut off.")
    version, backing_at = struct.unpack_from(">IQ", head, 4)
    crypt = struct.unpack_from(">I", head, 32)[0]
    if version not in (2, 3):
        raise Rejected("format_unsupported", f"qcow2 of version {version} is not supported.")
    if backing_at:
        raise Rejected("image_refers_outside", "The image stands on a backing file; flatten it (qemu-img convert).")
    if crypt:
        raise Rejected("image_encrypted", "The image is encrypted.")
    if version == 3 and struct.unpack_from(">Q", head, 72)[0] & _QCOW2_EXTERNAL_DATA:
        raise Rejected("image_refers_outside", "The image keeps its data in another file; convert it first.")


def backing_name(path: Path) -> str | None:
    """The backing file that a qcow2 names, None when it has none or is not qcow2."""
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or not head.startswith(b"QFI\xfb"):
            return None
        at, length = struct.unpack_from(">QI", head, 8)
        if not at or length > 1023:
            return None
        file.seek(at)
        return file.read(length).decode("utf-8", "replace")


def virtual_bytes(path: Path) -> int:
    """The size of the disk in a qcow2, by its header; 0 when it is none."""
    with path.open("rb") as file:
        head = file.read(32)
    return int(struct.unpack_from(">Q", head, 24)[0]) if len(head) == 32 and head.startswith(b"QFI\xfb") else 0


def _ends_with_vpc_footer(path: Path, size: int) -> bool:
    if size < 512:
        return False
    with path.open("rb") as file:
        file.seek(size - 512)
        return file.read(8) == b"conectix"
