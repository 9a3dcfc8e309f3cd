"""PostgreSQL is restarted in the middle of every step, done and undone: what was committed counts, known or not."""

import pytest

from tests.chaos.cases import COVERED, ENDS, MOST, STEPS, UNDOING, Stage, each

pytestmark = pytest.mark.chaos

HOW = ["broken", "unheard", "unknown"]


@pytest.mark.parametrize(("name", "position", "how"), each(STEPS + ENDS, HOW))
def test_restarted_in_a_step(stage: Stage, name: str, position: int, how: str) -> None:
    """At the first statement of each transaction of the step; at its commit, which is lost, or is not."""
    stage.prepare(name)
    for nth in stage.blows():
        job = stage.open()
        stage.strike(job, "run", position, nth, how)
        stage.ends(job, is_done=stage.is_done)


@pytest.mark.parametrize(("name", "position", "how"), each(UNDOING, HOW))
def test_restarted_while_undoing(stage: Stage, name: str, position: int, how: str) -> None:
    prepared = stage.prepare(name)
    last = len(prepared.steps) - 1
    for nth in stage.blows():
        job = stage.open()
        with stage.failing(prepared.steps[last], last):
            stage.strike(job, "undo", position, nth, how)
            stage.ends(job, position=last, is_done=False)


@pytest.mark.parametrize("most", MOST)
@pytest.mark.parametrize("how", ["killed", "broken"])
@pytest.mark.parametrize("name", COVERED)
def test_at_any_statement(stage: Stage, name: str, how: str, most: int | None) -> None:
    """The n-th statement since the job was opened is the last one: of its worker, or of the server."""
    stage.prepare(name)
    job = stage.open()
    began = stage.cloud.vault.statements
    stage.cloud.settle()
    total = stage.cloud.vault.statements - began
    for nth in stage.some(range(total), name + how, most=most):
        job = stage.open()
        stage.cloud.vault.at_statement = (nth, how)
        stage.cloud.settle()
        # By the clock it takes a statement more or less each time.
        assert stage.cloud.vault.at_statement is None or nth > total * 0.9
        stage.ends(job, is_done=stage.is_done)
