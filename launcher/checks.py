"""What `./mica check` looks at: one command each, silent when all is well."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.control import environment
from launcher.instance import Instance
from launcher.steps import Steps


@dataclass(frozen=True)
class Check:
    """A name for the line, and words run by the venv: a program of its bin folder with arguments."""

    name: str
    command: Sequence[str]


CHECKS = (
    Check("Lint (ruff)", ("ruff", "check", "--quiet", ".")),
    Check("Types (mypy)", ("mypy",)),
    Check("Contracts (import-linter)", ("lint-imports",)),
    Check("Map of rooms", ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_map.py")),
    Check("Migrations", ("python", "-W", "ignore", "manage.py", "makemigrations", "--check", "--dry-run")),
    Check("API schema", ("python", "manage.py", "spectacular", "--validate", "--fail-on-warn", "--file", "/dev/null")),
    Check("Translations", ("python", "-m", "launcher.messages")),
)


def run_all(instance: Instance, steps: Steps) -> bool:
    """Run every check, a line each; what a failing one wrote follows. True when all passed."""
    environment.prepare(instance)
    clean = {**os.environ, **environment.settings(instance)}
    failed: list[tuple[str, str]] = []
    for check in CHECKS:
        program, *words = check.command
        with steps.step(check.name) as note:
            done = subprocess.run(
                [instance.venv / "bin" / program, *words],
                cwd=instance.checkout,
                env=clean,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            note.say("ok" if done.returncode == 0 else "FAILED")
        if done.returncode:
            failed.append((check.name, (done.stdout + done.stderr).strip()))
    for name, text in failed:
        steps.say(f"\n── {name} ──\n{text}")
    return not failed
