"""Agents and machines die in the middle of every step they are asked for, done and undone, and come back."""

from collections.abc import Callable

import pytest

from cloud.common.wire import Command
from tests.chaos.cases import ON_MACHINES, UNDOING_ON_MACHINES, Stage, each, fails_at
from tests.chaos.machines import Died, Node

pytestmark = pytest.mark.chaos

# When: taken and not begun, between two calls of the driver (half done), done and not journaled, answered.
MOMENTS = ["accepted", "half", "done", "answered"]
HOW = ["agent", "machine"]


def dies(
    direction: str, position: int, moment: str, how: str
) -> tuple[Callable[[Node, Command, str], None], list[bool]]:
    """A `Fleet.trouble` in which the first command of the step is the end of its agent, or of its machine."""
    died: list[bool] = []
    calls: list[str] = []

    def trouble(node: Node, command: Command, at: str) -> None:
        if died or command.direction != direction or command.step != str(position):
            return
        calls.append(at)
        is_half = at == "driver" and moment == "half" and calls.count("driver") == 2
        if at == moment or is_half:
            died.append(True)
            if how == "machine":
                node.lose_power()
            raise Died

    return trouble, died


@pytest.mark.parametrize(("name", "position", "moment", "how"), each(ON_MACHINES, MOMENTS, HOW, daily=3))
def test_dies_in_a_step(stage: Stage, name: str, position: int, moment: str, how: str) -> None:
    stage.prepare(name)
    job = stage.open()
    stage.cloud.machines.trouble, died = dies("run", position, moment, how)
    stage.cloud.rush()
    if not died:
        assert moment == "half" or job.steps.get(position=position).state == "skipped"
    stage.cloud.hop(5)
    stage.cloud.rush()
    stage.ends(job, position=position, is_done=None if how == "machine" else stage.is_done)


@pytest.mark.parametrize(("name", "position", "moment", "how"), each(UNDOING_ON_MACHINES, MOMENTS, HOW, daily=3))
def test_dies_while_undoing(stage: Stage, name: str, position: int, moment: str, how: str) -> None:
    prepared = stage.prepare(name)
    last = len(prepared.steps) - 1
    job = stage.open()
    fails, (death, died) = fails_at(last, job), dies("undo", position, moment, how)

    def trouble(node: Node, command: Command, at: str) -> None:
        death(node, command, at)
        fails(node, command, at)

    with stage.failing(prepared.steps[last], last):
        stage.cloud.machines.trouble = trouble
        stage.cloud.rush()
        assert died or moment == "half" or stage.ended(job).steps.get(position=position).state != "undone"
        stage.cloud.hop(5)
        stage.cloud.rush()
        stage.cloud.come_back()
        stage.cloud.settle()
    stage.ends(job, position=last, is_done=False)


@pytest.mark.parametrize(("name", "position", "for_s"), each(ON_MACHINES, [30, 120]))
def test_away_for_a_while(stage: Stage, name: str, position: int, for_s: int) -> None:
    """The machine does it, and is cut off before it can say so: for a moment, or for longer than is waited for it."""
    stage.prepare(name)
    job = stage.open()
    away: list[Node] = []

    def cut_off(node: Node, command: Command, moment: str) -> None:
        if moment == "done" and command.step == str(position) and not away:
            node.is_away = True
            away.append(node)

    stage.cloud.machines.trouble = cut_off
    stage.cloud.rush()
    assert away or job.steps.get(position=position).state == "skipped"
    for _ in range(for_s // 15):
        stage.cloud.hop(15)
        stage.cloud.rush()
    stage.ends(job, position=position, is_done=stage.is_done if for_s < 45 else None)
