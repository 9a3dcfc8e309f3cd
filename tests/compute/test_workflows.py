"""Every workflow, failed and killed at every step: what a job did is undone, and what it was killed in goes on.

The list of cases is the registry of workflows itself: a new workflow needs a scenario, a new step is covered at once.
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from cloud.common.errors import Problem
from cloud.common.wire import Command, Document, Failure
from cloud.infra import enrolment
from cloud.infra.models import Zone
from cloud.jobs import engine, sweep
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import WORKFLOWS, AgentStep, Step, WaitStep
from tests.compute.scenarios import ELSEWHERE, SCENARIOS, Scenario
from tests.compute.simulated import Hosts
from tests.compute.world import World

NAMES = sorted(name for name in WORKFLOWS if not name.startswith("test."))
COVERED = [name for name in NAMES if name in SCENARIOS]
STEPS = [
    pytest.param(name, position, id=f"{name}-{step.__name__}")
    for name in COVERED
    for position, step in enumerate(WORKFLOWS[name].steps)
]
TURNS = STEPS + [pytest.param(name, len(WORKFLOWS[name].steps), id=f"{name}-end") for name in COVERED]
ON_MACHINES = [case for case in STEPS if issubclass(WORKFLOWS[case.values[0]].steps[case.values[1]], AgentStep)]
UNDOABLE = [name for name in COVERED if len(WORKFLOWS[name].steps) > 1 and not SCENARIOS[name].is_final]
UNDOING = [case for case in STEPS if case.values[0] in UNDOABLE]

_outcomes: dict[str, Document] = {}


class Killed(Exception):
    """A process that died: nothing of its transaction stays."""


@pytest.fixture(autouse=True)
def _access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "revoke", lambda agent: None)


@pytest.fixture
def fresh_world(machines: Hosts) -> Callable[[], World]:
    """Makes the world; called again, makes it anew from nothing."""

    def make() -> World:
        if Zone.objects.exists():
            machines.forget()
            call_command("flush", interactive=False, verbosity=0)
        return World(machines)

    return make


def outcome(name: str, fresh_world: Callable[[], World]) -> Document:
    """What is there after the workflow ran undisturbed."""
    if name not in _outcomes:
        world, scenario = fresh_world(), SCENARIOS[name]
        run(world, scenario, scenario.prepare(world), JobState.SUCCEEDED)
        _outcomes[name] = world.ledger()
    return _outcomes[name]


def run(world: World, scenario: Scenario, made: Any, state: JobState) -> Job:
    job = scenario.verb(world, made)
    world.settle()
    ended = world.ended(job)
    assert ended.state == state, ended.error
    return ended


def test_every_workflow_has_a_scenario() -> None:
    assert set(NAMES) == SCENARIOS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize(("name", "position"), STEPS)
def test_failed_at_a_step(
    fresh_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str, position: int
) -> None:
    expected = outcome(name, fresh_world)
    world, scenario, step = fresh_world(), SCENARIOS[name], WORKFLOWS[name].steps[position]
    made = scenario.prepare(world)
    before = world.ledger()
    with monkeypatch.context() as patch:
        break_at(patch, world, step, position)
        job = run(world, scenario, made, JobState.FAILED)
    failed = job.steps.get(position=position)
    assert (job.error["code"], failed.error["code"]) == ("broken", "broken")
    if step.__name__ not in scenario.is_final:
        assert world.rows() == {name: value for name, value in before.items() if name != "machines"}
        assert scenario.is_one_way or world.on_machines() == before["machines"]
    assert world.rows()["held"] == 0

    run(world, scenario, made, JobState.SUCCEEDED)
    assert world.ledger() == expected


@pytest.mark.parametrize(("name", "position"), TURNS)
def test_killed_in_a_step(
    fresh_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str, position: int
) -> None:
    expected = outcome(name, fresh_world)
    world, scenario = fresh_world(), SCENARIOS[name]
    job = scenario.verb(world, scenario.prepare(world))
    with monkeypatch.context() as patch:
        die_once(patch, lambda row: row.pk == job.pk and row.cursor == position)
        world.settle()
        assert not Job.objects.get(pk=job.pk).finished_at
        let_the_lease_run_out(job)
        sweep.run()
        world.settle()
    assert world.ended(job).state == JobState.SUCCEEDED
    assert world.ledger() == expected


@pytest.mark.parametrize(("name", "position"), ON_MACHINES)
def test_messages_lost_and_delivered_twice(
    fresh_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str, position: int
) -> None:
    """The first command of a step never arrives; all others, and all answers, arrive twice."""
    expected = outcome(name, fresh_world)
    world, scenario = fresh_world(), SCENARIOS[name]
    made = scenario.prepare(world)
    deliver, lost = world.machines.deliver, list[str]()

    def unreliable(agent: str, command: Command) -> None:
        if command.step == str(position) and not lost:
            lost.append(command.key)
            return
        deliver(agent, command)
        deliver(agent, command)

    monkeypatch.setattr(world.line, "deliver", unreliable)
    job = scenario.verb(world, made)
    world.settle()
    if not lost:
        assert job.steps.get(position=position).state == "skipped"
    else:
        assert not Job.objects.get(pk=job.pk).finished_at
        sweep.run()
        world.settle()
    assert world.ended(job).state == JobState.SUCCEEDED
    assert world.ledger() == expected


@pytest.mark.parametrize(("name", "position"), UNDOING)
def test_killed_while_undoing(
    fresh_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str, position: int
) -> None:
    """The last step fails, and the process dies while it takes this one back."""
    world, scenario = fresh_world(), SCENARIOS[name]
    made = scenario.prepare(world)
    before = world.ledger()
    last = len(WORKFLOWS[name].steps) - 1
    with monkeypatch.context() as patch:
        break_at(patch, world, WORKFLOWS[name].steps[last], last)
        job = scenario.verb(world, made)
        die_once(patch, lambda row: row.pk == job.pk and row.state == JobState.UNDOING and row.cursor == position)
        world.settle()
        assert not Job.objects.get(pk=job.pk).finished_at
        let_the_lease_run_out(job)
        sweep.run()
        world.settle()
    assert world.ended(job).state == JobState.FAILED
    assert world.rows() == {name: value for name, value in before.items() if name != "machines"}
    assert scenario.is_one_way or world.on_machines() == before["machines"]


def break_at(patch: pytest.MonkeyPatch, world: World, step: type[Step], position: int) -> None:
    """Have the step fail after it was done: the worst moment to fail."""
    broken = Problem("As the test wants it.", code="broken")
    if issubclass(step, AgentStep):
        obey = world.machines.obey

        def done_and_failed(command: Command, agent: str) -> Document | Failure:
            said = obey(command, agent)
            is_it = command.direction == "run" and command.step == str(position)
            return Failure("rejected", "broken", "As the test wants it.") if is_it else said

        patch.setattr(world.machines, "obey", done_and_failed)
    else:
        method = "is_met" if issubclass(step, WaitStep) else "run"
        original = getattr(step, method)

        def failing(self: Step, ctx: Any) -> None:
            original(self, ctx)
            raise broken

        patch.setattr(step, method, failing)


def die_once(patch: pytest.MonkeyPatch, when: Callable[[Job], bool]) -> None:
    """The process that takes such a turn dies at its end, before anything of it is committed or sent."""
    turn, died = engine._turn, list[bool]()

    def dying(uuid: Any, owner: str, queue: str) -> engine.Outcome:
        if died or not when(Job.objects.get(pk=uuid)):
            return turn(uuid, owner, queue)
        died.append(True)
        try:
            with transaction.atomic():
                turn(uuid, owner, queue)
                raise Killed
        except Killed:
            return engine.Outcome.LOST

    patch.setattr(engine, "_turn", dying)


def let_the_lease_run_out(job: Job) -> None:
    Job.objects.filter(pk=job.pk, lease_until__isnull=False).update(lease_until=timezone.now())
