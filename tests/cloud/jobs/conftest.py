"""A job engine without a broker: messages to workers and agents are kept in lists that a test delivers, loses or
delivers twice as it likes."""

from collections.abc import Callable
from typing import Any

import pytest

from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor, platform
from cloud.common.wire import Answer, Command, Document, Failure
from cloud.infra.models import Zone
from cloud.infra.services import connection
from cloud.jobs import agents, engine, leases, machines, services, sweep
from cloud.jobs.machines import Machine
from cloud.jobs.models import Job
from tests.cloud.jobs import flows


class Line:
    """The wires between control and its agents. `reply` answers a command with a body, a Failure, or None (silence).

    `others` are further messages on their way, as what delivers them. `lost` are machines that have been away for long
    (so is one whose heartbeat somebody else simulates, and which has none), `gone` those that were taken out of the
    cloud. Each step is a turn of its own, and the sweep looks at all jobs.
    """

    def __init__(self) -> None:
        self.kicks: list[tuple[Any, str]] = []
        self.commands: list[tuple[str, Command]] = []
        self.aborted: list[str] = []
        self.alive: dict[str, Document] = {}
        self.lost: set[str] = set()
        self.gone: set[str] = set()
        self.others: list[Callable[[], None]] = []
        self.reply: Callable[[Command], Document | Failure | None] = lambda command: {}
        self.seen: list[Command] = []

    def run(self) -> None:
        """Deliver everything until nothing moves."""
        while self.kicks or self.commands or self.others:
            if self.kicks:
                engine.advance(*self.kicks.pop(0))
            elif self.commands:
                self.deliver(*self.commands.pop(0))
            else:
                self.others.pop(0)()

    def deliver(self, agent: str, command: Command) -> None:
        self.seen.append(command)
        said = self.reply(command)
        if said is None:
            return
        answer = (
            Answer(command.key, agent, failure=said) if isinstance(said, Failure) else Answer(command.key, agent, said)
        )
        engine.answer(answer.to_document())

    def machine(self, agent: str) -> Machine | None:
        known = connection.machine(agent) or (Machine("the machine") if agent == flows.AGENT else None)
        if known is None or agent in self.gone:
            return None
        is_simulated = agents.heartbeat != self.heartbeat
        is_lost = agent in self.lost or (is_simulated and agents.heartbeat(agent) is None)
        return Machine(known.name, float("inf") if is_lost else 0.0)

    def heartbeat(self, agent: Any) -> Document | None:
        return self.alive.get(str(agent))

    def names(self) -> list[str]:
        return [f"{command.task} {command.direction}" for command in self.seen]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Line:
    wires = Line()
    settings.MICA = {**settings.MICA, "resend_after_s": 0.0}
    for module in (engine, services, sweep):
        monkeypatch.setattr(module, "kick", lambda job, queue="control": wires.kicks.append((job, queue)))
    monkeypatch.setattr(
        agents, "send_command", lambda agent, command, is_bulk: wires.commands.append((str(agent), command))
    )
    monkeypatch.setattr(agents, "heartbeat", wires.heartbeat)
    monkeypatch.setattr(agents, "abort", wires.aborted.extend)
    monkeypatch.setattr(machines, "find", lambda agent: wires.machine(str(agent)))
    monkeypatch.setattr(engine, "STEPS_A_TURN", 1)
    monkeypatch.setattr(leases, "LOOK_AFTER_S", 0.0)
    return wires


@pytest.fixture
def actor() -> Actor:
    return platform("test")


@pytest.fixture
def zone(transactional_db: None) -> Zone:
    """Any resource will do as the thing that jobs work on."""
    bootstrap.ensure_admin()
    return Zone.objects.create(name="here", project=bootstrap.admin_project())


@pytest.fixture
def fresh() -> Callable[[Job], Job]:
    return lambda job: Job.objects.get(pk=job.pk)
