"""`./mica test`: set-up, checks, then pytest against an instance of its own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO

from launcher import checks, preflight, setup
from launcher.cloud import Cloud
from launcher.control import environment
from launcher.instance import NAME_LENGTH, Instance
from launcher.steps import Steps

# Long ones run when asked for: by --full, or by a -m of one's own.
EVERYDAY = "not full"


def instance_for_tests(instance: Instance) -> Instance:
    """Beside the developer's own: data, namespaces and port do not meet."""
    return dataclasses.replace(instance, name=f"{instance.name[: NAME_LENGTH - 5]}-test", port=preflight.free_port())


def run(instance: Instance, *, is_full: bool, arguments: Sequence[str], steps: Steps) -> int:
    """Everything a change must pass; returns the exit code. The test instance is purged before and after."""
    setup.tools(instance, steps, for_test=True)
    if not checks.run_all(instance, steps):
        return 1
    cloud = Cloud(instance_for_tests(instance), steps)
    quiet = Cloud(cloud.instance, Steps(StringIO()))
    quiet.down(purge=True)
    cloud.up_stores()
    try:
        code, summary = _pytest(cloud.instance, is_full=is_full, arguments=arguments)
    finally:
        quiet.down(purge=True)
    steps.say(summary)
    return code


def _pytest(instance: Instance, *, is_full: bool, arguments: Sequence[str]) -> tuple[int, str]:
    """Run pytest, showing what it writes; its exit code and its last line."""
    chosen = [] if is_full or "-m" in arguments else ["-m", EVERYDAY]
    colour = ["--color=yes"] if sys.stdout.isatty() else []
    process = subprocess.Popen(
        [instance.python, "-m", "pytest", *chosen, *colour, *arguments],
        cwd=instance.checkout,
        env=test_environment(instance),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    summary = ""
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        summary = line.strip() or summary
    return process.wait(), summary


def test_environment(instance: Instance) -> dict[str, str]:
    """The test instance's settings; the lab is not up yet, its fixture says when it is."""
    settings = environment.settings(instance)
    del settings["MICA_LAB"]
    return {**os.environ, **settings}
