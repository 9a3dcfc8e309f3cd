"""Every step of every workflow fails, and is killed, done and undone: it is as if done or as before."""

import pytest

from tests.chaos.cases import ELSEWHERE, ENDS, NAMES, SCENARIOS, STEPS, UNDOING, Stage, each

pytestmark = pytest.mark.chaos


def test_every_workflow_has_a_scenario() -> None:
    assert set(NAMES) == SCENARIOS.keys() | ELSEWHERE


@pytest.mark.parametrize(("name", "position"), STEPS)
def test_failed_at_a_step(stage: Stage, name: str, position: int) -> None:
    prepared = stage.prepare(name)
    job = stage.open()
    with stage.failing(prepared.steps[position], position):
        stage.cloud.settle()
    job = stage.ended(job)
    if job.steps.get(position=position).state == "skipped":
        return  # it has nothing to do here, and nothing to fail at
    stage.ends(job, position=position, is_done=False)
    assert (job.error["code"], job.steps.get(position=position).error["code"]) == ("broken", "broken")
    stage.ends_well_again()


@pytest.mark.parametrize(("name", "position", "how"), each(STEPS + ENDS, ["killed", "killed_after"]))
def test_process_killed(stage: Stage, name: str, position: int, how: str) -> None:
    """Before and after the commit of each transaction in which this step is at work."""
    stage.prepare(name)
    for nth in stage.blows():
        job = stage.open()
        stage.strike(job, "run", position, nth, how)
        stage.ends(job, is_done=stage.is_done)


@pytest.mark.parametrize(("name", "position", "how"), each(UNDOING, ["killed", "killed_after"]))
def test_process_killed_while_undoing(stage: Stage, name: str, position: int, how: str) -> None:
    """The last step fails, and the process dies while it takes this one back."""
    prepared = stage.prepare(name)
    last = len(prepared.steps) - 1
    for nth in stage.blows():
        job = stage.open()
        with stage.failing(prepared.steps[last], last):
            stage.strike(job, "undo", position, nth, how)
            stage.ends(job, position=last, is_done=False)


@pytest.mark.xfail(strict=True, reason="what follows from a hello is done after its commit, and never made good")
def test_what_follows_from_a_hello_is_done_though_the_process_dies(stage: Stage) -> None:
    """A new host is told its storages by a receiver of `agent_connected`, which a dead process never calls."""
    position = [step.__name__ for step in stage.steps("host.add")].index("WaitForHello")
    stage.is_told_once = True
    try:
        test_process_killed(stage, "host.add", position, "killed_after")
    finally:
        stage.is_told_once = False
