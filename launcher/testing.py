"""`./mica test`: set-up, checks, then pytest against an instance of its own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO

from launcher import checks, preflight, setup
from launcher.cloud import Cloud
from launcher.control import environment
from launcher.instance import NAME_LENGTH, Instance
from launcher.steps import Steps

# Long ones run when asked for: by --full, or by a -m of one's own.
EVERYDAY = "not full"
SHOWN_AT_ONCE = 1 << 16


def instance_for_tests(instance: Instance, suffix: str = "-test") -> Instance:
    """Beside the developer's own: data, namespaces and port do not meet."""
    return dataclasses.replace(
        instance, name=f"{instance.name[: NAME_LENGTH - len(suffix)]}{suffix}", port=preflight.free_port()
    )


def run(instance: Instance, *, is_full: bool, arguments: Sequence[str], steps: Steps) -> int:
    """Everything a change must pass; returns the exit code. The test instances are purged before and after."""
    setup.tools(instance, steps, for_test=True)
    if not checks.run_all(instance, steps):
        return 1
    if is_full or arguments:
        chosen = [] if is_full or "-m" in arguments else ["-m", EVERYDAY]
        runs = [_Run(instance_for_tests(instance), [*chosen, *arguments], steps)]
    else:
        # The lab mostly waits and the others compute; side by side, each with stores of its own: the lab kills its.
        runs = [
            _Run(instance_for_tests(instance, suffix), ["-m", f"{marked} and {EVERYDAY}"], steps)
            for suffix, marked in (
                ("-test", "lab"),
                ("-unit", "not lab and not chaos"),
                ("-chaos", "chaos and not lab"),
            )
        ]
    with ExitStack() as stores:
        for each in runs:
            stores.enter_context(each.stores())
        try:
            for each in runs:
                each.begin()
            codes = [each.wait() for each in runs]
        finally:
            for each in runs:
                each.end()
    for each in runs:
        steps.say(each.summary)
    return max(codes)


class _Run:
    """pytest against an instance of its own. The output is shown as it comes, of several runs one after the other."""

    def __init__(self, instance: Instance, arguments: Sequence[str], steps: Steps) -> None:
        self.instance, self.arguments, self.summary = instance, arguments, ""
        self._cloud, self._quiet = Cloud(instance, steps), Cloud(instance, Steps(StringIO()))
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read until the run is over

    @contextmanager
    def stores(self) -> Iterator[None]:
        self._quiet.down(purge=True)
        self._cloud.up_stores()
        try:
            yield
        finally:
            self._quiet.down(purge=True)

    def begin(self) -> None:
        colour = ["--color=yes"] if sys.stdout.isatty() else []
        self._process = subprocess.Popen(
            [self.instance.python, "-m", "pytest", *colour, *self.arguments],
            cwd=self.instance.checkout,
            env=test_environment(self.instance),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def end(self) -> None:
        """Stop what still runs, when the whole was broken off."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def wait(self) -> int:
        """Show what the run writes until it ends; its exit code."""
        assert self._process is not None
        shown, code = 0, None
        while code is None:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.2)
            text = os.pread(self._output.fileno(), SHOWN_AT_ONCE, shown)
            while text:
                shown += len(text)
                sys.stdout.buffer.write(text)
                sys.stdout.flush()
                self.summary = self._last_line(text) or self.summary
                text = os.pread(self._output.fileno(), SHOWN_AT_ONCE, shown)
        return code

    @staticmethod
    def _last_line(text: bytes) -> str:
        lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


def test_environment(instance: Instance) -> dict[str, str]:
    """The test instance's settings; the lab is not up yet, its fixture says when it is."""
    settings = environment.settings(instance)
    # Nor do tests, each in a transaction of its own, share connections.
    del settings["MICA_LAB"], settings["MICA_DATABASE_POOL"]
    return {**os.environ, **settings}
