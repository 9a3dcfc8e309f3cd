"""The agent replaces itself: a new release comes in by the stream door, is tried, and takes the old one's place.

On disk lie `agent.pyz`, and beside it `agent.pyz.previous`. While `upgrade.json` in the state directory says `pending`,
the new release is on trial: control must confirm it within CONFIRM_S, and it may not start more than STARTS times, or
the previous file comes back by itself. Every change of a file is one rename, so a kill at any point leaves one whole
release in place, and the next start knows which it is by its own version.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.agent import version
from cloud.common.driver import DriverError, Rejected, Transient

log = logging.getLogger(__name__)

CONFIRM_S = 120.0
STARTS = 3
SELF_TEST_S = 60
LONGEST_BYTES = 64 << 20
RESOURCE = "upgrade"


@dataclass(frozen=True)
class Offer:
    """What control says of the release it sends."""

    version: str
    sha256: str
    size_bytes: int


class Upgrade:
    """The releases of one agent. `restart` ends this process in order and begins what `agent.pyz` then holds."""

    def __init__(
        self,
        state_dir: Path,
        config_dir: Path,
        *,
        bundle: Path | None = None,
        restart: Callable[[], None] = lambda: None,
        confirm_s: float = CONFIRM_S,
    ) -> None:
        self.bundle = bundle or Path(sys.argv[0]).resolve()
        self._state = state_dir / "upgrade.json"
        self._config_dir, self._restart, self._confirm_s = config_dir, restart, confirm_s
        self._lock = threading.Lock()
        self._settled = threading.Event()

    @property
    def arriving(self) -> Path:
        return self.bundle.with_name(self.bundle.name + ".new")

    @property
    def previous(self) -> Path:
        return self.bundle.with_name(self.bundle.name + ".previous")

    def begin(self) -> None:
        """Called first at each start: count it while on trial, and go back when there were too many.

        Raises WentBack when the previous release is in place again and should be started instead of this one.
        """
        pending = self._read().get("pending")
        if pending is None:
            return
        if version.current() != pending["to"]:
            # Killed before the new file was in place, or after the previous one was put back.
            self._write({"failed": {"version": pending["to"], "reason": pending.get("reason", "It was broken off.")}})
            return
        pending["starts"] += 1
        self._write({"pending": pending})
        if pending["starts"] > STARTS:
            self.go_back(f"It ended {STARTS} times before control confirmed it.")
            raise WentBack
        threading.Thread(target=self._expect_confirmation, name="trial", daemon=True).start()

    def failure(self) -> dict[str, str] | None:
        """{version, reason} of the last release that did not stay; None when the last one did."""
        failed = self._read().get("failed")
        return failed if isinstance(failed, dict) else None

    def is_present(self, offer: Offer) -> bool:
        """Whether the release runs already: then nothing needs to be sent."""
        return version.current() == offer.version

    def expect_acceptable(self, offer: Offer) -> None:
        """Raise Rejected or Transient when the release cannot be taken now."""
        if not zipfile.is_zipfile(self.bundle):
            raise Rejected("not_a_bundle", f"The agent runs from {self.bundle}, which is no file of a release.")
        if not 0 < offer.size_bytes <= LONGEST_BYTES:
            raise Rejected("release_too_long", f"A release of {offer.size_bytes} bytes is not taken.")
        if self._read().get("pending"):
            raise Transient("release_on_trial", "The release that runs is not confirmed yet.")

    def install(self, offer: Offer) -> None:
        """Try what lies in `arriving` and put it in the place of this release; `restart` is the caller's to call.

        Raises Rejected for a file that is not what was offered, or that does not start on this machine.
        """
        with self._lock:
            self.expect_acceptable(offer)
            found = hashlib.sha256(self.arriving.read_bytes()).hexdigest()
            if found != offer.sha256:
                raise Rejected("release_damaged", f"Its SHA-256 is {found}, not {offer.sha256}.")
            self.arriving.chmod(0o755)
            self._self_test(offer)
            self._write({"pending": {"from": version.current(), "to": offer.version, "starts": 0}})
            _copy(self.bundle, self.previous)
            os.replace(self.arriving, self.bundle)
            _sync(self.bundle.parent)
        log.info("release %s is in place of %s", offer.version, version.current())

    def restart(self) -> None:
        self._restart()

    def confirm(self, confirmed: str) -> None:
        """Control can work with this release: it stays. Raises Rejected when another one runs."""
        if version.current() != confirmed:
            failed = self.failure() or {}
            reason = failed.get("reason", "") if failed.get("version") == confirmed else "Another release runs."
            raise Rejected("release_went_back", f"{version.current()} runs. {reason}".strip())
        with self._lock:
            if self._read().get("pending"):
                self._write({})
            self._settled.set()

    def go_back(self, reason: str) -> None:
        """Put the previous release back. It runs from the next start on."""
        with self._lock:
            pending = self._read().get("pending")
            if pending is None:
                return
            log.error("release %s goes back: %s", pending["to"], reason)
            self._write({"pending": {**pending, "reason": reason}})
            _copy(self.previous, self.bundle)
            self._write({"failed": {"version": pending["to"], "reason": reason}})

    def _expect_confirmation(self) -> None:
        if not self._settled.wait(self._confirm_s):
            self.go_back(f"Control did not confirm it within {self._confirm_s:.0f} seconds.")
            self._restart()

    def _self_test(self, offer: Offer) -> None:
        argv = [sys.executable, "-I", str(self.arriving), "--config", str(self._config_dir), "selftest"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=SELF_TEST_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Rejected("release_does_not_start", f"It does not start on this machine: {error}") from error
        if done.returncode or done.stdout.strip() != offer.version:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
            raise Rejected("release_does_not_start", f"It does not start on this machine: {words[0]}")

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, document: dict[str, Any]) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._state.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(json.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._state)


class WentBack(DriverError):
    """The previous release is in place again: start that."""

    def __init__(self) -> None:
        super().__init__("release_went_back", "The previous release is in place again.")


def _copy(source: Path, target: Path) -> None:
    """Have `target` be what `source` is, whole or not at all; both names then stand for the same file."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    os.link(source, partial)
    os.replace(partial, target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
