"""Desired state: the newest number of each section wins, one pass at a time per section, mended each minute."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud.agent import jitter
from cloud.agent.clockwork import Routine
from cloud.agent.journal import Journal
from cloud.agent.registry import SECTIONS, Machine
from cloud.common.driver import DriverError
from cloud.common.wire import Desired, Document, Failure, Held

log = logging.getLogger(__name__)

DRIFT_S = 60.0
FIRST_RETRY_S = 1.0

Tell = Callable[[Held], None]
Failures = dict[str, Failure]


class PartsFailed(DriverError):
    """A section was converged but for these parts, named by what control calls them: the rest of it is held.

    Code and nature are those of the first part.
    """

    def __init__(self, parts: Failures) -> None:
        first = next(iter(parts.values()))
        super().__init__(first.code, "; ".join(f"{name}: {each.detail}" for name, each in parts.items()))
        self.nature = first.nature
        self.parts = parts


@dataclass
class _Section:
    name: str
    wanted: int = 0
    body: Document = field(default_factory=dict)
    held: int = 0
    failure: Failure | None = None
    failures: Failures = field(default_factory=dict)
    # Somebody waits for a word, even if it is the last one again: control asked anew, or this process is new.
    is_asked: bool = True
    has_passed: bool = False
    retries: int = 0
    routine: Routine | None = None

    def wake(self) -> None:
        if self.routine is not None:
            self.routine.wake()


class Convergence:
    """Keeps the machine in the state it should have; `tell` hears each number held, or why it is not."""

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        boot_id: str,
        tell: Tell,
        *,
        drift_s: float = DRIFT_S,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._machine, self._journal, self._boot_id, self._tell = machine, journal, boot_id, tell
        self._drift_s, self._first_retry_s = drift_s, first_retry_s
        self._lock = threading.RLock()
        self._sections: dict[str, _Section] = {}
        self._is_stopping = False

    def start(self) -> None:
        """Converge to what was wanted last, whether it was held or not: the machine may have changed meanwhile."""
        for stored in self._journal.sections(self._boot_id):
            if stored.section in SECTIONS:
                self._begin(_Section(stored.section, stored.number, stored.body, stored.held))

    def offer(self, desired: Desired) -> None:
        """Take what control wants now; an older number than the one known changes nothing."""
        name, number = desired.section, desired.number
        if name not in SECTIONS:
            detail = f"This agent does not know the section {name}; upgrade it."
            self._tell(self._held(name, number, Failure("unsupported", "unknown_section", detail)))
            return
        is_new = self._journal.want(name, number, desired.body)
        with self._lock:
            section = self._sections.get(name)
            if section is None:
                self._begin(_Section(name, number, desired.body))
                return
            if is_new and number > section.wanted:
                section.wanted, section.body, section.retries = number, desired.body, 0
            held = section.held
            if held < section.wanted:
                section.is_asked = True
                section.wake()
            failures = dict(section.failures)
        if held >= number:
            self._tell(self._held(name, held, failures=failures))

    def held(self) -> dict[str, int]:
        """The number held of each section."""
        with self._lock:
            return {s.name: s.held for s in self._sections.values() if s.held}

    def failures(self) -> dict[str, Document]:
        """Parts that fail, as documents by section and part, of each section that was looked at since the start."""
        with self._lock:
            looked_at = [section for section in self._sections.values() if section.has_passed]
            return {s.name: {part: each.to_document() for part, each in s.failures.items()} for s in looked_at}

    def errors(self) -> dict[str, str]:
        """What is wrong with the sections whose last pass failed, wholly or in parts."""
        with self._lock:
            return {s.name: _words(s.failure, s.failures) for s in self._sections.values() if s.failure or s.failures}

    def stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            for section in self._sections.values():
                if section.routine is not None:
                    section.routine.stop()

    def _begin(self, section: _Section) -> None:
        with self._lock:
            self._sections[section.name] = section
            name = f"section-{section.name}"
            section.routine = self._machine.clockwork.routine(lambda: self._once(section), name=name)

    def _once(self, section: _Section) -> float | None:
        """One pass over the section; the seconds until the next one."""
        with self._lock:
            if self._is_stopping:
                return None
            number, body = section.wanted, section.body
            is_asked, section.is_asked = section.is_asked, False
        failure, failures = self._pass(section.name, body)
        self._settle(section, number, failure, failures, is_asked=is_asked)
        pause = jitter.between(0.9 * self._drift_s, self._drift_s)
        if failure or failures:
            pause = min(pause, self._first_retry_s * 2.0 ** (section.retries - 1))
        return pause

    def _pass(self, name: str, body: Document) -> tuple[Failure | None, Failures]:
        """What kept the section from being held, and the parts that failed though it is held."""
        try:
            SECTIONS[name](self._machine.opened(body), self._machine)
        except PartsFailed as error:
            return None, error.parts
        except DriverError as error:
            return Failure(error.nature, error.code, error.detail), {}
        except Exception as error:
            log.exception("section %s failed", name)
            return Failure("failed", "internal_error", f"{type(error).__name__}: {error}"), {}
        return None, {}

    def _settle(
        self, section: _Section, number: int, failure: Failure | None, failures: Failures, *, is_asked: bool
    ) -> None:
        with self._lock:
            before = (section.failure, section.failures)
            is_new = (failure, failures) != before or (failure is None and section.held != number)
            has_trouble = failure is not None or bool(failures)
            if is_new and has_trouble:
                log.warning("section %s %d: %s", section.name, number, _words(failure, failures))
            if is_new and failure is None:
                # What failed for want of this section (a bridge, a directory) may work now.
                for other in self._sections.values():
                    if other is not section and (other.failure is not None or other.failures):
                        other.wake()
            section.held = number if failure is None else section.held
            section.failure, section.failures, section.has_passed = failure, failures, True
            section.retries = min(section.retries + 1, 20) if has_trouble else 0
        if is_new or is_asked:
            if failure is None:
                self._journal.hold(section.name, number, self._boot_id)
            self._tell(self._held(section.name, number, failure, failures))

    def _held(
        self, section: str, number: int, failure: Failure | None = None, failures: Failures | None = None
    ) -> Held:
        return Held(self._machine.uuid, section, number, failure, failures or {})


def _words(failure: Failure | None, failures: Failures) -> str:
    parts = [f"{name}: {each.code}: {each.detail}" for name, each in failures.items()]
    return "; ".join([f"{failure.code}: {failure.detail}"] if failure else parts)
