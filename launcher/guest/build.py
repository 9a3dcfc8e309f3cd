"""Builds the guest image: a small Linux from the distribution's own packages, an ordinary bootable qcow2 of 1 GiB.

It holds the distribution's smallest kernel, busybox, the QEMU guest agent, an SSH server, a DHCP client and a NoCloud
reader; it boots from BIOS on machine types `pc` and `q35`, with 128 MiB of memory or more. What it understands of
cloud-init is told in `root/usr/lib/guest/seed` and `network`. Standard library only: it runs before there is a virtual
environment.

    python3 -m launcher.guest.build OUT.qcow2
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from launcher.guest import disk, packages, tree
from launcher.guest.commands import BuildError, check_tools


def build(out: Path, work: Path | None = None) -> None:
    """Build the image at `out`, which is replaced only when all is well.

    `work` is an empty folder for what is in between (some 400 MiB); without it a temporary one is used and removed.
    Raises BuildError with what to do.
    """
    if work is None:
        with tempfile.TemporaryDirectory(prefix="mica-guest-") as folder:
            return build(out, Path(folder))
    check_tools()
    out, work = out.absolute(), work.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    packages.fetch(work / "debs")
    stage = packages.Stage(work / "stage")
    stage.unpack(work / "debs")
    modules = tree.Modules(stage.modules(), work / "kernel")
    modules.check()
    tree.root_tree(work / "root", stage, modules)
    tree.early_tree(work / "early", stage, modules)
    disk.initramfs(work / "early", work / "initrd.gz")
    disk.bootable(out, work, kernel=stage.kernel(modules.version), early=work / "initrd.gz", tree=work / "root")
    return None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    began = time.monotonic()
    try:
        build(Path(arguments[0]))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    size = Path(arguments[0]).stat().st_size
    print(f"{arguments[0]}: {size / (1 << 20):.1f} MiB, built in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
