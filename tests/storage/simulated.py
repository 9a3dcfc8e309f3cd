"""Agents inside a test: the real handlers on storages in memory, reached through the job engine's wires."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloud.agent.config import AgentConfig
from cloud.agent.registry import COMMANDS, SECTIONS, Call, Machine, Unlinked
from cloud.common.driver import DriverError
from cloud.common.tickets import addressee
from cloud.common.wire import Command, Document, Failure
from cloud.infra.models import Agent
from storage.agent import handlers, places
from storage.drivers.fake import WORLDS, FakeStorage, World
from storage.messages import CapacityReport, StoragePlace
from storage.models import BackupStorage
from storage.services import reports, sections
from storage.workflows.steps import place
from tests.storage.doubles import Bytes


class Machines:
    """The agents of a test by uuid. `web` maps URLs to bytes, or to an error, for image servers to fetch."""

    def __init__(self, monkeypatch: Any, tmp_path: Path) -> None:
        self.web: dict[str, bytes | Exception] = {}
        self._tmp_path = tmp_path
        self._machines: dict[str, Machine] = {}
        self._homes: dict[str, str] = {}
        monkeypatch.setattr(places, "primary", self._primary)
        monkeypatch.setattr(handlers, "fetch", self._fetch)
        monkeypatch.setattr(handlers, "pulled", self._pulled)

    def of(self, agent: Any) -> Machine:
        key = str(getattr(agent, "pk", agent))
        if key not in self._machines:
            config = AgentConfig(uuid=key, hypervisor="fake")
            self._machines[key] = Machine(key, "host", config, self._tmp_path, link=Unlinked())
        return self._machines[key]

    def disk(self, agent: Any, path: str) -> World:
        """What is at this path of a machine: each has its own; the first one's is in `WORLDS` by the path itself."""
        key = str(getattr(agent, "pk", agent))
        is_first = self._homes.setdefault(path, key) == key
        return WORLDS[path if is_first else f"{path}/{key}"]

    def _primary(self, machine: Machine, place: StoragePlace) -> FakeStorage:
        self.disk(machine.uuid, place.path)
        is_first = self._homes[place.path] == machine.uuid
        return FakeStorage(place.path if is_first else f"{place.path}/{machine.uuid}")

    def obey(self, command: Command, agent: str) -> Document | Failure:
        """Run the handler of a command as the agent would."""
        handler = COMMANDS[command.task]
        call = Call(command.key, command.job, command.resource, self.of(agent), command.step)
        try:
            answer = handler.function(handler.message.from_document(command.body), call)
        except DriverError as error:
            if command.direction == "undo" and error.nature == "not_found":
                return {}
            return Failure(error.nature, error.code, error.detail)
        return answer.to_document() if answer else {}

    def converge(self, agent: Agent) -> None:
        """Bring an agent to its section, and control to what it reports."""
        machine = self.of(agent)
        SECTIONS["storages"](sections.storages(agent), machine)
        topic, body = machine.link.published[-1]  # type: ignore[attr-defined]
        assert topic == handlers.CAPACITY
        reports.note(agent, CapacityReport.from_document(body))

    @contextmanager
    def _fetch(self, url: str, guard: Any, watch: Any) -> Iterator[Bytes]:
        found = self.web[url]
        if isinstance(found, Exception):
            raise found
        yield Bytes(found)

    @contextmanager
    def _pulled(self, machine: Machine, origin: Any) -> Iterator[Bytes]:
        server = BackupStorage.objects.get(agent=addressee(origin.ticket))
        store = places.image_store(self.of(server.agent_id), place(server))
        with store.open_image(origin.image) as file:
            yield Bytes(file.read())
