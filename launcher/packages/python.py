"""The venv of the checkout: /usr/bin/python3 with the pinned requirements."""

from __future__ import annotations

import os
import shutil
import sys

from launcher.instance import CACHE, Instance
from launcher.packages import stamps
from launcher.process import SYSTEM_PATH, run

PYTHON = "/usr/bin/python3"


def install(instance: Instance) -> str:
    """Make the venv match requirements.txt; says what was done. Raises Refusal when pip cannot."""
    requirements = instance.checkout / "requirements.txt"
    stamp = instance.venv / "mica.stamp"
    # A venv holds its own path and its Python's version: moved or upgraded, it must be made anew.
    identity = f"{instance.venv} {sys.version}"
    current = stamps.digest(identity, requirements)
    if stamps.is_current(stamp, current):
        return "up to date"
    advice = "Look whether PyPI can be reached (pip config list), then run the same command again."
    made_for = instance.venv / "mica.identity"
    if not stamps.is_current(made_for, identity):
        shutil.rmtree(instance.venv, ignore_errors=True)
        run([PYTHON, "-m", "venv", instance.venv], what="Making the venv", advice=advice)
        stamps.write(made_for, identity)
    run(
        [
            instance.python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--cache-dir",
            CACHE / "pip",
            "--requirement",
            requirements,
        ],
        what="pip install",
        env={"PATH": SYSTEM_PATH} | dict(os.environ),
        advice=advice,
    )
    stamps.write(stamp, current)
    pinned = sum(1 for line in requirements.read_text().splitlines() if "==" in line)
    return f"{pinned} installed"
