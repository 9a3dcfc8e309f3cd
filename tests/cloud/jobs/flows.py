"""Workflows for tests: a world of lights that steps switch on and undo switches off."""

from typing import Any

from cloud.common.errors import Conflict
from cloud.common.wire import Document, Message
from cloud.jobs.workflow import AgentStep, Context, Step, WaitStep, Workflow

AGENT = "11111111-1111-4111-8111-111111111111"
world: set[str] = set()
broken: set[str] = set()
met: set[str] = set()


def reset() -> None:
    world.clear(), broken.clear(), met.clear()


class Light(Message):
    kind = "test.light"


class Dark(Message):
    kind = "test.dark"


class First(Step):
    label = "First"

    def run(self, ctx: Context) -> None:
        if "first" in broken:
            raise Conflict("no first", code="no_first", advice="mend it")
        world.add("first")
        ctx["left"] = "a note"

    def undo(self, ctx: Context) -> None:
        world.discard("first")


class OnMachine(AgentStep):
    label = "On the machine"

    def agent(self, ctx: Context) -> str:
        return AGENT

    def ask(self, ctx: Context) -> Message:
        return Light()

    def answered(self, ctx: Context, body: Document) -> None:
        world.add("machine")

    def undo_ask(self, ctx: Context) -> Message:
        return Dark()

    def undo_answered(self, ctx: Context, body: Document) -> None:
        world.discard("machine")


class Condition(WaitStep):
    label = "Condition"

    def topics(self, ctx: Context) -> list[str]:
        return ["the-topic"]

    def is_met(self, ctx: Context) -> bool:
        return "condition" in met


class Last(Step):
    label = "Last"

    def run(self, ctx: Context) -> None:
        if "last" in broken:
            raise RuntimeError("a defect")
        world.add("last")

    def undo(self, ctx: Context) -> None:
        world.discard("last")


class Kept(Step):
    label = "A reservation"
    releases = True

    def run(self, ctx: Context) -> None:
        world.add("kept")

    def undo(self, ctx: Context) -> None:
        world.discard("kept")


class Lights(Workflow):
    name = "test.lights"
    verb = "Switch on"
    activity = "switching"
    steps = [Kept, First, OnMachine, Condition, Last]
    ended: list[Any] = []

    def succeeded(self, ctx: Context) -> None:
        self.ended.append("succeeded")

    def failed(self, ctx: Context) -> None:
        self.ended.append("failed")
