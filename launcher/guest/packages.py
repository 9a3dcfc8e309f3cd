"""Debian and Ubuntu packages of the guest: which, and where their files are once unpacked."""

from __future__ import annotations

import os
import re
from pathlib import Path

from launcher.guest.commands import BuildError, run

# Small kernels first; each is a package that depends on the newest real one.
KERNELS = ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual", "linux-image-amd64")
SEEDS = ("busybox-static", "qemu-guest-agent", "dropbear-bin", "e2fsprogs", "fdisk", "util-linux")
_LIBRARY = re.compile(r"lib(?!32|x32)|zlib1g$")
_DEPENDS = re.compile(r"^ *\|?(?:Pre)?Depends: (\S+)$")


def _depends(*packages: str) -> list[str]:
    """Names the packages depend on directly, without virtual ones."""
    shown = run("apt-cache", "depends", "--important", *packages)
    found = (_DEPENDS.match(line) for line in shown.splitlines())
    return [match.group(1) for match in found if match and not match.group(1).startswith("<")]


def _is_known(package: str) -> bool:
    return "Candidate: (none)" not in (policy := run("apt-cache", "policy", package)) and bool(policy.strip())


def kernel_packages() -> list[str]:
    """The newest small kernel's packages: its image and, where the distribution keeps them apart, its modules.

    Raises BuildError when apt offers none.
    """
    for meta in filter(_is_known, KERNELS):
        for image in (name for name in _depends(meta) if name.startswith("linux-image-")):
            # A signed Ubuntu image lists its modules as a dependency of its own.
            return [image, *(name for name in _depends(image) if name.startswith("linux-modules-"))]
    raise BuildError(
        f"apt offers no kernel for the guest (looked for {', '.join(KERNELS)}): run `apt-get update`, "
        "or check that the distribution's main component is in /etc/apt."
    )


def with_libraries(packages: tuple[str, ...]) -> list[str]:
    """The packages and the libraries that they need, directly or not, as apt's dependency lists tell."""
    wanted, level = dict.fromkeys(packages), list(packages)
    while level:
        names = dict.fromkeys(_depends(*level))
        level = [name for name in names if name not in wanted and _LIBRARY.match(name)]
        wanted.update(dict.fromkeys(level))
    return list(wanted)


class Stage:
    """A folder with the packages' files, in which things are found whether or not /usr is merged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def unpack(self, debs: Path) -> None:
        for deb in sorted(debs.glob("*.deb")):
            run("dpkg-deb", "-x", deb, self.folder)

    def program(self, name: str) -> Path:
        """Raises BuildError when no package brought it."""
        for place in ("usr/sbin", "usr/bin", "sbin", "bin"):
            if (found := self.folder / place / name).is_file():
                return found
        raise BuildError(f"No package brought the program {name}: the distribution names or packs it differently.")

    def libraries(self) -> list[Path]:
        """Folders that hold shared libraries."""
        places = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib")
        return [folder for place in places if (folder := self.folder / place).is_dir()]

    def loader(self) -> Path:
        """The dynamic loader, as a real file."""
        for folder in (self.folder / "lib64", self.folder / "usr/lib64", *self.libraries()):
            if (found := folder / "ld-linux-x86-64.so.2").is_symlink() or found.is_file():
                target = os.readlink(found) if found.is_symlink() else found.name
                for library in (found.parent / target, *(place / Path(target).name for place in self.libraries())):
                    if library.is_file() and not library.is_symlink():
                        return library
        raise BuildError("No package brought ld-linux-x86-64.so.2: is this an amd64 distribution?")

    def modules(self) -> Path:
        """The folder `lib/modules/<version>` of the kernel."""
        for place in ("lib/modules", "usr/lib/modules"):
            for found in sorted((self.folder / place).glob("*/kernel")):
                return found.parent
        raise BuildError("The kernel's package brought no modules.")

    def kernel(self, version: str) -> Path:
        for found in (self.folder / f"boot/vmlinuz-{version}", self.folder / f"usr/lib/modules/{version}/vmlinuz"):
            if found.is_file():
                return found
        raise BuildError(f"The kernel's package brought no vmlinuz-{version}.")


def fetch(debs: Path) -> None:
    """Download the guest's packages into a folder. Raises BuildError."""
    debs.mkdir(parents=True, exist_ok=True)
    packages = [*kernel_packages(), *with_libraries(SEEDS)]
    try:
        run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages, cwd=debs)
    except BuildError as error:
        advice = "Run `apt-get update`; is the package mirror reachable?"
        raise BuildError(f"The guest's packages could not be downloaded. {advice} {error}") from error
