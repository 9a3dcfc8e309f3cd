"""Hosts inside a test: agents' real handlers on a hypervisor, storages and networks in memory."""

from pathlib import Path
from typing import Any

from cloud.agent.convergence import PartsFailed
from cloud.agent.registry import QUERIES, SECTIONS, Machine
from cloud.common.driver import DriverError
from cloud.common.errors import Unavailable
from cloud.common.wire import Answer, Command, Desired, Document, Failure, Held, Message, Observation
from cloud.infra import observations
from cloud.infra.agent import doctor as _doctor  # noqa: F401
from cloud.infra.models import Agent
from cloud.infra.services import desired
from cloud.jobs import agents, engine
from compute.agent import doctor as _domains  # noqa: F401
from compute.agent import handlers as _handlers  # noqa: F401
from compute.agent import hypervisor
from compute.drivers.fake import FakeHypervisor
from compute.services import reality
from compute.workflows import bookings
from network.agent import doctor as _devices  # noqa: F401
from network.agent import handlers as _networks  # noqa: F401
from network.agent.machine import driver
from network.drivers.fake import FakeNetwork
from storage.agent import doctor as _files  # noqa: F401
from storage.drivers.fake import WORLDS
from tests.cloud.jobs.conftest import Line
from tests.storage.simulated import Machines


class Hosts(Machines):
    """The agents of a test, on the wires of a `Line`: commands, desired sections and queries reach them.

    `away` holds the uuids of agents that do not answer. Commands that were answered may be delivered again: as the
    journal of a real agent does, the first answer is given again.
    """

    def __init__(self, monkeypatch: Any, tmp_path: Path, line: Line) -> None:
        super().__init__(monkeypatch, tmp_path)
        self.line, self.away = line, set[str]()
        self.journal: dict[str, Document | Failure] = {}
        self._on_their_way: set[tuple[str, str]] = set()
        monkeypatch.setattr(line, "deliver", self.deliver)
        monkeypatch.setattr(desired, "_send_soon", self._send_soon)
        monkeypatch.setattr(agents, "send_desired", self.converge_to)
        monkeypatch.setattr(agents, "ask", self.ask)
        monkeypatch.setattr(bookings, "_look_soon", self._look_soon)
        monkeypatch.setattr(agents, "heartbeat", lambda agent: None if str(agent) in self.away else {"in_work": []})

    def forget(self) -> None:
        """All machines are gone, with all that was on them."""
        self._machines.clear()
        self.journal.clear()
        WORLDS.clear()

    def of(self, agent: Any) -> Machine:
        machine = super().of(agent)
        machine.resources.setdefault(hypervisor.RESOURCE, FakeHypervisor())
        return machine

    def hypervisor(self, agent: Any) -> FakeHypervisor:
        found = self.of(agent).resources[hypervisor.RESOURCE]
        assert isinstance(found, FakeHypervisor)
        return found

    def network(self, agent: Any) -> FakeNetwork:
        found = driver(self.of(agent))
        assert isinstance(found, FakeNetwork)
        return found

    def deliver(self, agent: str, command: Command) -> None:
        self.line.seen.append(command)
        if agent in self.away:
            return
        if command.key not in self.journal:
            self.journal[command.key] = self.obey(command, agent)
        said = self.journal[command.key]
        is_failure = isinstance(said, Failure)
        answer = Answer(command.key, agent, failure=said) if is_failure else Answer(command.key, agent, said)
        engine.answer(answer.to_document())

    def obey(self, command: Command, agent: str) -> Document | Failure:
        if command.task == "infra.retire":  # would end the agent of this very machine
            return {}
        return super().obey(command, agent)

    def ask(self, agent: Any, message: Message, timeout: float = 5.0) -> Document:
        if str(agent) in self.away:
            raise Unavailable("The machine did not answer in time.", code="agent_silent")
        document: Document = QUERIES[message.kind].function(message, self.of(agent)).to_document()
        return document

    def converge_to(self, wanted: Desired) -> None:
        """The machine brings itself to a section, tells what it saw, and what number it holds."""
        if wanted.agent in self.away:
            return
        machine = self.of(wanted.agent)
        failure, parts = None, {}
        try:
            SECTIONS[wanted.section](wanted.body, machine)
        except PartsFailed as error:
            parts = error.parts
        except DriverError as error:
            failure = Failure(error.nature, error.code, error.detail)
        told, machine.link.published[:] = list(machine.link.published), []  # type: ignore[attr-defined]
        for topic, body in told:
            observations.dispatch(Observation(wanted.agent, topic, body, 0.0).to_document())
        desired.note(Held(wanted.agent, wanted.section, wanted.number, failure, parts).to_document())

    def _send_soon(self, agent: Any, section: str) -> None:
        if (str(agent), section) not in self._on_their_way:
            self._on_their_way.add((str(agent), section))
            self.line.others.append(lambda: self._send(str(agent), section))

    def _look_soon(self, agent: str) -> None:
        self.line.others.append(lambda: reality.look(Agent.objects.get(pk=agent)))

    def _send(self, agent: str, section: str) -> None:
        self._on_their_way.discard((agent, section))
        desired.send(agent, section)
