"""The guest's root tree: our own files, the packages' programs with their libraries, and the kernel's modules."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from launcher.guest.commands import EPOCH, BuildError, run
from launcher.guest.packages import Stage

HERE = Path(__file__).parent
PROGRAMS = ("qemu-ga", "dropbear", "dropbearkey", "resize2fs", "mke2fs", "sfdisk", "partx")
# Modules, absent ones skipped: a kernel may have them built in, or not at all.
DISK_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix", "ahci", "ext4")
BOOT_MODULES = (
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "sr_mod",
    "isofs",
    "af_packet",
    "button",
    "evdev",
    "virtio_mem",
)
LATER_MODULES = ("ipv6", "8021q", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8")
NEEDED_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "isofs", "sr_mod")


def _plain(name: str) -> str:
    return name.split("/")[-1].split(".ko")[0].replace("-", "_")


class Modules:
    """The kernel's modules with what each needs, by depmod."""

    def __init__(self, source: Path, work: Path) -> None:
        """Move the modules into a tree of their own in `work`, where depmod finds them on any distribution."""
        self.version = source.name
        self.folder = work / "usr/lib/modules" / self.version
        self.folder.parent.mkdir(parents=True)
        (work / "lib").symlink_to("usr/lib")
        shutil.move(source, self.folder)
        run("depmod", "-b", work, self.version)
        lines = (self.folder / "modules.dep").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines)
        self.needs = {path: needed.split() for path, needed in pairs}
        self.paths = {_plain(path): path for path in self.needs}
        self.builtin = {_plain(line) for line in (self.folder / "modules.builtin").read_text().splitlines()}

    def check(self) -> None:
        """Raise BuildError when the kernel lacks a driver the guest cannot do without."""
        missing = [name for name in NEEDED_MODULES if name not in self.paths and name not in self.builtin]
        if missing:
            raise BuildError(f"The kernel {self.version} has no {', '.join(missing)}: another kernel is needed.")

    def order(self, names: Iterable[str]) -> list[str]:
        """Paths of the modules and of all they need, in the order in which they load."""
        found: dict[str, None] = {}

        def add(path: str) -> None:
            for needed in reversed(self.needs[path]):
                if needed not in found:
                    add(needed)
            found[path] = None

        for name in names:
            if name in self.paths:
                add(self.paths[name])
        return list(found)

    def copy(self, path: str, target: Path) -> Path:
        """Copy one module, uncompressed, to `target` (its path without .xz or .zst); gives back where it is."""
        source, plain = self.folder / path, target.with_name(target.name.removesuffix(".xz").removesuffix(".zst"))
        plain.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".xz"):
            plain.write_bytes(lzma.decompress(source.read_bytes()))
        elif path.endswith(".zst"):
            run("zstd", "-q", "-d", "-f", source, "-o", plain)
        else:
            shutil.copyfile(source, plain)
        return plain


def _own_files(source: Path, target: Path) -> None:
    """Copy our files; scripts become executable, whatever the checkout made of their modes."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    for path in target.rglob("*"):
        if path.is_symlink():
            continue
        is_program = path.is_dir() or path.read_bytes().startswith(b"#!")
        path.chmod(0o755 if is_program else 0o644)


def _programs(root: Path, stage: Stage) -> None:
    loader, places = stage.loader(), [str(folder) for folder in stage.libraries()]
    libraries = root / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (root / "usr/lib64").mkdir()
    shutil.copy(loader, root / "usr/lib64/ld-linux-x86-64.so.2")
    for name in PROGRAMS:
        program = stage.program(name)
        shutil.copy(program, root / "usr/bin" / name)
        listed = run(loader, "--inhibit-cache", "--library-path", ":".join(places), "--list", program)
        for line in listed.splitlines():
            soname, arrow, found = line.strip().partition(" => ")
            if not arrow or soname.startswith("/"):  # the loader itself
                continue
            path = Path(found.split(" (")[0])
            if not path.is_relative_to(stage.folder):
                raise BuildError(f"{name} needs the library {soname}, which none of the fetched packages brings.")
            shutil.copy(path.resolve(), libraries / soname)


def _busybox(root: Path, stage: Stage) -> None:
    shutil.copy(stage.program("busybox"), root / "usr/bin/busybox")
    for applet in run(root / "usr/bin/busybox", "--list").split():
        if not os.path.lexists(link := root / "usr/bin" / applet):
            link.symlink_to("busybox")
    if not os.path.lexists(init := root / "usr/bin/init"):
        init.symlink_to("busybox")


FOLDERS = ["usr/bin", "etc/dropbear", "proc", "sys", "dev", "run", "mnt", "tmp", "root/.ssh", "var/log", "var/lib"]
# /usr is merged, and sbin into bin.
LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/sbin": "bin",
    "usr/bin/mkfs.ext4": "mke2fs",
    "var/run": "/run",
}


def root_tree(root: Path, stage: Stage, modules: Modules) -> None:
    """Make the guest's root tree in an empty folder. Raises BuildError."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for link, target in LINKS.items():
        (root / link).symlink_to(target)
    _own_files(HERE / "root", root)
    _programs(root, stage)
    _busybox(root, stage)
    home = root / "usr/lib/modules" / modules.version
    for path in modules.order((*DISK_MODULES, *BOOT_MODULES, *LATER_MODULES)):
        modules.copy(path, home / path)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (listing := modules.folder / name).is_file():
            shutil.copy(listing, home / name)
    run("depmod", "-b", root, modules.version)
    (root / "etc/modules").write_text("".join(f"{name}\n" for name in BOOT_MODULES))
    (root / "etc/os-release").write_text(
        f'NAME="Mica guest"\nID=mica-guest\nVERSION_ID="1"\nPRETTY_NAME="Mica guest (Linux {modules.version})"\n'
    )
    for path, mode in {"etc/shadow": 0o600, "root": 0o700, "root/.ssh": 0o700, "tmp": 0o1777}.items():
        (root / path).chmod(mode)
    settle_times(root)


def early_tree(root: Path, stage: Stage, modules: Modules) -> None:
    """Make the tree of the initramfs: busybox, the drivers of disks, and our init."""
    for folder in ("bin", "dev", "proc", "sys", "new", "modules"):
        (root / folder).mkdir(parents=True)
    _own_files(HERE / "initramfs", root)
    shutil.copy(stage.program("busybox"), root / "bin/busybox")
    loaded = [modules.copy(path, root / "modules" / Path(path).name) for path in modules.order(DISK_MODULES)]
    (root / "modules/order").write_text("".join(f"{path.name}\n" for path in loaded))
    settle_times(root)


def settle_times(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
