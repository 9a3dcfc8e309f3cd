"""Set-up: everything that must be on the machine and in the checkout before anything starts. Idempotent."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager

from launcher import locks, preflight
from launcher.instance import DATA_ROOT, Instance
from launcher.lab import image
from launcher.packages import apt, node, python, translations
from launcher.steps import Steps


def tools(instance: Instance, steps: Steps, *, for_test: bool = False) -> None:
    """Packages of the distribution, of PyPI and of npm, compiled translations. Raises Refusal."""
    preflight.become_root()
    preflight.check_distribution()
    preflight.check_disk(instance)
    with _alone(steps):
        with steps.step("Debian packages") as note:
            note.say(apt.install(for_test=for_test))
        with steps.step("Python packages") as note:
            note.say(python.install(instance))
        with steps.step("Front-end packages") as note:
            note.say(node.install(instance))
        with steps.step("Translations") as note:
            note.say(translations.compile_all(instance))


def lab_files(instance: Instance, steps: Steps) -> None:
    """The guest image and the SSH key for the lab's instances. Raises Refusal."""
    with _alone(steps), steps.step("Guest image") as note:
        note.say(image.publish(instance))
    key = instance.ssh_key
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        comment = f"mica lab {instance.name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key], check=True)


def _alone(steps: Steps) -> AbstractContextManager[None]:
    """apt, pip and npm do not like company: one set-up at a time on a machine."""
    return locks.held(DATA_ROOT / "set-up.lock", lambda who: steps.say(f"  Waiting for another set-up ({who})"))
