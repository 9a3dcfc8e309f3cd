"""Front-end files: npm packages from the lock, no scripts, no build step."""

from __future__ import annotations

import os

from launcher.instance import CACHE, Instance
from launcher.packages import stamps
from launcher.process import SYSTEM_PATH, run


def install(instance: Instance) -> str:
    """Make node_modules match package-lock.json; says what was done. Raises Refusal when npm cannot."""
    lock = instance.checkout / "package-lock.json"
    stamp = instance.checkout / "node_modules/.mica.stamp"
    current = stamps.digest(lock)
    if stamps.is_current(stamp, current):
        return "up to date"
    run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", CACHE / "npm"],
        what="npm ci",
        cwd=instance.checkout,
        env=dict(os.environ) | {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"},
        advice="Look whether the npm registry can be reached (npm ping), then run the same command again.",
    )
    stamps.write(stamp, current)
    return "installed"
