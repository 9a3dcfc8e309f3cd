"""Makes and starts a domain with nothing but libvirt and qemu-img, says how long that took, and removes it.

Runs on a host, given the XML of a domain on standard input and [image, size in bytes] of its root disk as argument: the
new one is like it but for uuid, addresses and files, which lie in the image's file system. Prints {"seconds": …}.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt

BEGIN_PATIENCE_S = 30


def twin(text: str, folder: Path) -> tuple[str, list[tuple[Path, bool]]]:
    """The XML of the new domain; of each of its disks the file to make, and whether that is a seed."""
    old = ET.fromstring(text).findtext("uuid", "")  # noqa: S314 - libvirt's own words
    root = ET.fromstring(text.replace(old, str(uuid.uuid4())))  # noqa: S314
    for number, interface in enumerate(root.iter("interface")):
        address = bytes((2, 190, *os.urandom(3), number)).hex(":")
        for part, name, value in (("mac", "address", address), ("target", "dev", f"bench{number}")):
            interface.findall(part)[0].set(name, value)
    files = []
    for number, disk in enumerate(root.iter("disk")):
        files.append((folder / f"disk-{number}", disk.get("device") == "cdrom"))
        disk.findall("source")[0].set("file", str(files[-1][0]))
    for holder in (*root.iter("source"), *root.iter("graphics"), *root.iter("listen")):
        for name in ("path", "socket"):
            if place := holder.get(name):
                holder.set(name, str(folder / Path(place).name))
    return ET.tostring(root, encoding="unicode"), files


def overlay(path: Path, image: str, size: int) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, str(path), str(size)]
    subprocess.run(command, check=True)


def seed(path: Path, folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    for name in ("meta-data", "user-data", "network-config"):
        (tree / name).write_text("instance-id: bench\n")
    options = ["-quiet", "-input-charset", "utf-8", "-volid", "cidata", "-joliet", "-rational-rock"]
    subprocess.run(["genisoimage", *options, "-output", str(path), str(tree)], check=True)


def main() -> None:
    connection = libvirt.open("qemu:///system")
    image, size = json.loads(sys.argv[1])
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=Path(image).parents[2]))
    domain = None
    try:
        folder.chmod(0o777)
        text, files = twin(sys.stdin.read(), folder)
        started = time.perf_counter()
        for path, is_seed in files:
            seed(path, folder) if is_seed else overlay(path, image, size)
        domain = connection.defineXML(text)
        domain.create()
        until = time.monotonic() + BEGIN_PATIENCE_S
        while domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            if time.monotonic() > until:
                raise TimeoutError("the domain does not run")
            time.sleep(0.005)
        print(json.dumps({"seconds": time.perf_counter() - started}))
    finally:
        if domain is not None:
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        shutil.rmtree(folder, ignore_errors=True)


main()
