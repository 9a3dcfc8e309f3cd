"""Programs the build calls, and the one error it raises."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import Refusal

# Program → Debian package that brings it.
TOOLS: Mapping[str, str] = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
}
# Only for kernels with modules compressed so (Ubuntu's).
SOMETIMES: Mapping[str, str] = {"zstd": "zstd"}
EPOCH = 1_700_000_000  # every time stamp in the image, so that equal packages give equal images
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(Refusal):
    """The image cannot be built; the message says what is wrong and what to do."""


def run(*command: str | Path, cwd: Path | None = None, feed: bytes | None = None) -> str:
    """Run a program and give back what it printed. Raises BuildError with its words when it fails or is not there."""
    words = [str(word) for word in command]
    times = {"SOURCE_DATE_EPOCH": str(EPOCH), "E2FSPROGS_FAKE_TIME": str(EPOCH)}
    environment = {**os.environ, "LC_ALL": "C", "PATH": _PATH, **times}
    try:
        done = subprocess.run(words, cwd=cwd, input=feed, capture_output=True, env=environment, check=False)
    except FileNotFoundError as error:
        package = {**TOOLS, **SOMETIMES}.get(words[0])
        advice = f"install the package {package}" if package else "is it installed?"
        raise BuildError(f"The program {words[0]} was not found: {advice}.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildError(f"{' '.join(words[:6])} … failed (status {done.returncode}): {said[-2000:]}")
    return done.stdout.decode(errors="replace")


def check_tools() -> None:
    """Raise BuildError naming the packages to install when a program is missing, or when this is not root."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=_PATH)})
    if missing:
        raise BuildError(f"The guest image needs: apt-get install {' '.join(missing)}.")
    if os.geteuid() != 0:
        raise BuildError("The guest image is built as root, so that its files belong to root: use sudo.")


def copy_into(target: Path, source: Path, offset: int) -> None:
    """Write `source` into `target` at a byte offset, leaving holes where it holds zeros."""
    block = 1 << 20
    with source.open("rb") as reader, target.open("r+b") as writer:
        while data := reader.read(block):
            if data.count(0) != len(data):
                writer.seek(offset)
                writer.write(data)
            offset += len(data)
