"""Every workflow and every step as cases, from the registry: a new workflow needs a scenario, a new step nothing.

A case puts the world back to where its verb was about to be called, opens the job, has something happen, heals
everything, and compares with the world as it was before and as it is after the verb ran undisturbed.
"""

import copy
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import models

from cloud.common.driver import Rejected
from cloud.common.errors import Conflict, Problem
from cloud.common.wire import Command
from cloud.infra.workflows.steps import ENROL
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import WORKFLOWS, AgentStep, Step, WaitStep
from tests.chaos import enrolling, truth
from tests.chaos.cloud import Cloud, Saved
from tests.chaos.machines import Node
from tests.chaos.vault import Blow
from tests.compute import scenarios
from tests.compute.scenarios import Scenario
from tests.compute.world import World

SCENARIOS = {**scenarios.SCENARIOS, **enrolling.SCENARIOS}
ELSEWHERE = scenarios.ELSEWHERE.keys() - enrolling.SCENARIOS.keys()
NAMES = sorted(name for name in WORKFLOWS if not name.startswith("test."))
COVERED = [name for name in NAMES if name in SCENARIOS]
# Image servers are enrolled by the very steps of hosts: those are enough for every day.
AT_LENGTH = {"backup_storage.add", "backup_storage.reconnect"}


def _marks(name: str, step: type[Step]) -> Sequence[Any]:
    return (pytest.mark.full,) if name in AT_LENGTH and step in ENROL else ()


STEPS = [
    pytest.param(name, position, id=f"{name}-{step.__name__}", marks=_marks(name, step))
    for name in COVERED
    for position, step in enumerate(WORKFLOWS[name].steps)
]
ENDS = [pytest.param(name, len(WORKFLOWS[name].steps), id=f"{name}-end") for name in COVERED]
ON_MACHINES = [case for case in STEPS if issubclass(WORKFLOWS[case.values[0]].steps[case.values[1]], AgentStep)]
UNDOING = [
    case for case in STEPS if len(WORKFLOWS[case.values[0]].steps) > 1 and not SCENARIOS[case.values[0]].is_final
]
UNDOING_ON_MACHINES = [case for case in UNDOING if case in ON_MACHINES]
LAST_HOST = 4
# How many moments of a case are tried: every one when all is run.
MOST = [pytest.param(5, id="some"), pytest.param(None, id="all", marks=pytest.mark.full)]
# What a machine lost is not brought back: records then tell what is seen there (`truth.settled` compares them).
SEEN = {"instances", "nics", "hosts", "machines"}


def each(cases: Sequence[Any], *ways: Sequence[Any], daily: int = 1) -> list[Any]:
    """The cases in every combination of ways: some of these every day, in turn from case to case; all in a full run."""
    made = []
    for turn, case in enumerate(cases):
        combinations = list(itertools.product(*ways))
        today = {(turn * daily + index) % len(combinations) for index in range(daily)}
        for number, combination in enumerate(combinations):
            name = "-".join(map(str, (case.id, *combination)))
            marks = case.marks if number in today else (pytest.mark.full,)
            made.append(pytest.param(*case.values, *combination, id=name, marks=marks))
    return made


@dataclass
class Prepared:
    """A workflow about to begin: `before` it, and `after` it when nothing went wrong."""

    name: str
    scenario: Scenario
    made: Any
    moment: Saved
    before: dict[str, Any]
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> list[type[Step]]:
        return WORKFLOWS[self.name].steps

    def is_final_at(self, position: int) -> bool:
        return self.steps[position].__name__ in self.scenario.is_final


class Stage:
    """The cloud of a file of cases. Worlds are made once, and put back."""

    def __init__(self, cloud: Cloud, *, hosts: int = 1) -> None:
        self.cloud = cloud
        self.world = World(cloud_as_hosts(cloud), hosts=hosts)
        self._known = _Rows(vars(self.world).values())
        self._empty = cloud.save()
        self._prepared: Prepared | None = None
        self._struck: Blow | None = None
        # Whether an agent's first hello must do: what follows from it is not made good until the next one.
        self.is_told_once = False

    def begin_anew(self) -> None:
        """The world in which nothing was made yet."""
        self._prepared = None
        self.cloud.restore(self._empty)
        self._known.restore()

    def prepare(self, name: str) -> Prepared:
        """The world in which the verb of this workflow is about to be called; kept while the name is the same."""
        if self._prepared is None or self._prepared.name != name:
            self.begin_anew()
            scenario = SCENARIOS[name]
            if name.startswith("instance.") and scenario.prepare is not scenarios.nothing:
                self.world.create("bystander")  # what is given back twice is missed by somebody
            made = scenario.prepare(self.world)
            self.cloud.heal()
            found = Prepared(name, scenario, made, self.cloud.save(), self.ledger())
            self._rows = _Rows([*vars(self.world).values(), made])
            self._prepared = found
            job = self.open()
            self.cloud.heal()
            assert self.ended(job).state == JobState.SUCCEEDED, self.ended(job).error
            found.after = self.ledger()
        return self._prepared

    @staticmethod
    def steps(name: str) -> list[type[Step]]:
        return WORKFLOWS[name].steps

    def open(self) -> Job:
        """The job, opened in the world as it was before; nothing has happened yet."""
        prepared = self._prepared
        assert prepared is not None
        self.cloud.restore(prepared.moment)
        self._rows.restore()
        self.job = prepared.scenario.verb(self.world, prepared.made)
        return self.job

    def ledger(self) -> dict[str, Any]:
        """The world's, without where instances were last: a machine that was started anew leaves its mark there."""
        found = self.world.ledger()
        found["instances"] = [row[:LAST_HOST] + row[LAST_HOST + 1 :] for row in found["instances"]]
        return found

    @staticmethod
    def ended(job: Job) -> Job:
        return Job.objects.get(pk=job.pk)

    def ends(self, job: Job, *, position: int | None = None, is_done: bool | None = None) -> str:
        """Heal, and see that the job ended as if done or as before; which of both, as `is_done` asks when it does.

        `position` is where it was failed, for steps after which nothing can be as before.
        """
        self.cloud.heal()
        if self._prepared and self._prepared.name in enrolling.SCENARIOS and not self.is_told_once:
            self.cloud.greet_again()
        prepared, job, ledger = self._prepared, self.ended(job), self.ledger()
        assert prepared is not None
        assert job.finished_at, (job.state, job.cursor, job.waiting)
        said = (job.state, (job.error or {}).get("code"), [(s.name, s.state) for s in job.steps.all()])
        assert job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED), said
        has_ended_well = job.state == JobState.SUCCEEDED
        assert is_done is None or has_ended_well == is_done, said
        assert ledger["held"] == 0
        truth.settled(self.world)
        self.cloud.boxes.settled()
        if has_ended_well:
            assert not different(ledger, prepared.after), (said, _differences(ledger, prepared.after))
        elif position is None or not prepared.is_final_at(position):
            allowed = SEEN if prepared.scenario.is_one_way else set()
            assert different(ledger, prepared.before) <= allowed, (said, _differences(ledger, prepared.before))
        return job.state

    def ends_well_again(self) -> bool:
        """The same verb, once more: what was left behind by the first one must not be in its way.

        False when it is not to be had: what was done and cannot be undone was seen, and is not asked for twice.
        """
        prepared = self._prepared
        assert prepared is not None
        try:
            again = prepared.scenario.verb(self.world, prepared.made)
        except Conflict as conflict:
            if prepared.scenario.is_one_way and conflict.code == "wrong_state":
                return False
            raise
        self.cloud.heal()
        assert self.ended(again).state == JobState.SUCCEEDED, self.ended(again).error
        assert self.ledger() == prepared.after
        return True

    def still_well(self) -> None:
        """Nothing has changed since the verb ended well."""
        prepared = self._prepared
        assert prepared is not None
        self.cloud.heal()
        truth.settled(self.world)
        assert self.ledger() == prepared.after

    @property
    def is_done(self) -> bool | None:
        """Whether it is done whatever was lost. An enrolment may fail: for want of the SSH secret, which is kept in
        Redis alone, or of the agent's first word."""
        assert self._prepared is not None
        return None if self._prepared.name in enrolling.SCENARIOS else True

    # what befalls it

    def blows(self) -> Iterator[int]:
        """0, 1, 2, … for as long as there was a transaction to strike; there must have been one at all."""
        for nth in itertools.count():
            yield nth
            blow = self.cloud.vault.blow or self._struck
            if not (self._struck and self._struck.has_struck):
                assert nth, f"nothing was ever there to be struck: {blow}"
                return

    def strike(self, job: Job, direction: str, position: int, nth: int, how: str) -> None:
        """Let the job go on until it is settled, struck by a `Blow` on its way."""
        self._struck = self.cloud.vault.blow = Blow(job.pk, direction, position, nth, how)
        self.cloud.settle()

    @staticmethod
    def some(moments: Sequence[Any], name: str, *, most: int | None) -> Sequence[Any]:
        """At most so many of the moments, spread evenly; which ones is drawn by the case's name."""
        if most is None or len(moments) <= most:
            return moments
        stride = -(-len(moments) // most)
        return moments[zlib.crc32(name.encode()) % stride :: stride]

    # what fails

    @contextmanager
    def failing(self, step: type[Step], position: int) -> Iterator[None]:
        """Have the step fail after it was done: the worst moment to fail."""
        with pytest.MonkeyPatch.context() as patch:
            if issubclass(step, AgentStep):
                self.cloud.machines.trouble = fails_at(position, self.job)
            else:
                method = "is_met" if issubclass(step, WaitStep) else "run"
                original: Callable[..., Any] = getattr(step, method)

                def failing(self: Step, ctx: Any) -> None:
                    original(self, ctx)
                    raise Problem("As the test wants it.", code="broken")

                patch.setattr(step, method, failing)
            yield


def fails_at(position: int, job: Job) -> Callable[[Node, Command, str], None]:
    def trouble(node: Node, command: Command, moment: str) -> None:
        if (
            command.job == str(job.pk)
            and moment == "done"
            and command.direction == "run"
            and command.step == str(position)
        ):
            raise Rejected("broken", "As the test wants it.")

    return trouble


class _Rows:
    """What rows in Python's hands look like now: acts change them, and a world put back needs them as they were."""

    def __init__(self, values: Iterable[Any]) -> None:
        rows = [row for row in values if isinstance(row, models.Model)]
        self._kept = [(row, dict(vars(row)), copy.copy(row._state)) for row in rows]

    def restore(self) -> None:
        for row, values, state in self._kept:
            vars(row).clear()
            vars(row).update(values)
            row._state = copy.copy(state)


def cloud_as_hosts(cloud: Cloud) -> Any:
    """The fleet as `World` knows hosts: its `line` is the cloud."""
    cloud.machines.line = cloud  # type: ignore[attr-defined]
    return cloud.machines


def _differences(ledger: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What is, and what should be."""
    return {name: (ledger[name], other[name]) for name in different(ledger, other)}


def different(ledger: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in ledger if ledger[name] != other[name]}
