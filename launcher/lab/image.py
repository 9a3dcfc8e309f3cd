"""The guest image: built once for all instances of this machine, served by the lab's outside world."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from launcher.control.programs import outside_www
from launcher.errors import Refusal
from launcher.guest.build import build
from launcher.guest.commands import BuildError
from launcher.instance import CACHE, Instance
from launcher.lab.plan import OUTSIDE_ADDRESS
from launcher.packages import stamps

NAME = "mica-guest.qcow2"
KEPT_RECIPES = 4
RECIPE = Path(__file__).resolve().parent.parent / "guest"


def publish(instance: Instance) -> str:
    """Build the image when its recipe changed and lay it, with its SHA-256, where outside's web server serves it."""
    os_release = Path("/etc/os-release")
    recipe = stamps.digest(RECIPE, os_release.read_text() if os_release.exists() else "")
    kept = CACHE / "guest" / recipe[:16] / NAME
    said = "up to date"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".new")
        try:
            build(unfinished)
        except BuildError as error:
            raise Refusal(f"The guest image was not built: {error}", "Run the same command again.") from error
        unfinished.rename(kept)
        _prune(kept.parent.parent)
        said = f"built, {kept.stat().st_size / (1 << 20):.1f} MiB"
    checksum = _sha256(kept)
    www = outside_www(instance)
    www.mkdir(parents=True, exist_ok=True)
    marker = www / f"{NAME}.sha256"
    if not (www / NAME).exists() or not marker.exists() or marker.read_text().split()[0] != checksum:
        fresh = www / f"{NAME}.new"
        shutil.copyfile(kept, fresh)
        fresh.rename(www / NAME)
        marker.write_text(f"{checksum}  {NAME}\n")
    return said


def facts(instance: Instance) -> dict[str, object]:
    """What the seed needs to add it: url, sha256, size_bytes."""
    image = outside_www(instance) / NAME
    return {
        "url": f"http://{OUTSIDE_ADDRESS}/{NAME}",
        "sha256": (outside_www(instance) / f"{NAME}.sha256").read_text().split()[0],
        "size_bytes": image.stat().st_size,
    }


def _prune(folder: Path) -> None:
    """Forget images of recipes long gone; other checkouts may still use the last few."""
    by_age = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for old in by_age[KEPT_RECIPES:]:
        shutil.rmtree(old)


def _sha256(path: Path) -> str:
    """The checksum of a file, remembered beside it: it is asked for at each `up`."""
    remembered = path.with_suffix(".sha256.json")
    identity = [path.stat().st_size, path.stat().st_mtime_ns]
    if remembered.exists():
        known = json.loads(remembered.read_text())
        if known["identity"] == identity:
            return str(known["sha256"])
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    remembered.write_text(json.dumps({"identity": identity, "sha256": checksum}))
    return checksum
