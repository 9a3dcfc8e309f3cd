"""All machines of a cloud in memory, and what is done to the commands they are given."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud.agent.registry import Machine
from cloud.common.wire import Command, Document
from compute.agent import hypervisor
from compute.drivers.fake import FakeHypervisor
from compute.messages import EVENT_TOPIC
from network.drivers.fake import FakeNetwork
from storage.drivers.fake import WORLDS, FakeImageStore, FakeStorage
from tests.chaos.broker import Redis
from tests.chaos.machines import BUSY, Inline, Node
from tests.storage.simulated import Machines

# What changes something on a machine.
DRIVERS: dict[type, list[str]] = {
    FakeHypervisor: ["start", "stop", "reboot", "remove"],
    FakeStorage: ["cache_image", "forget_partial_image", "create_volume", "delete_volume"],
    FakeImageStore: ["add_image", "delete_image"],
}


class Fleet(Machines):
    """All machines by their agent's uuid, made when they are first spoken of. Of `World`, what it asks of hosts."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, redis: Redis) -> None:
        super().__init__(patch, folder)
        self.redis, self.folder = redis, folder
        self.nodes: dict[str, Node] = {}
        # What befalls commands: `trouble(node, command, moment)`; moments are `accepted`, `driver` (before each of its
        # calls), `done` and `answered`.
        self.trouble: Callable[[Node, Command, str], None] | None = None
        for kind, names in DRIVERS.items():
            for name in names:
                patch.setattr(kind, name, _watched(getattr(kind, name)))

    def of(self, agent: Any) -> Machine:
        return self.node(agent).machine

    def node(self, agent: Any, facts: Document | None = None) -> Node:
        key = str(getattr(agent, "pk", agent))
        if key not in self.nodes:
            machine = super().of(key)
            made = FakeHypervisor()
            made._dispatcher = Inline()  # type: ignore[assignment]
            machine.resources[hypervisor.RESOURCE] = made
            told = dict(facts if facts is not None else getattr(agent, "facts", {}))
            node = Node(machine, self.redis, self.folder, told, lambda command, at: self._struck(key, command, at))
            self.nodes[key] = node
            made.open(on_event=lambda event: node.publish(EVENT_TOPIC, event.to_document()), on_connect=lambda: None)
            node.is_up = True
        return self.nodes[key]

    def _struck(self, key: str, command: Command, moment: str) -> None:
        if self.trouble:
            self.trouble(self.nodes[key], command, moment)

    def hypervisor(self, agent: Any) -> FakeHypervisor:
        return self.node(agent).hypervisor

    def network(self, agent: Any) -> FakeNetwork:
        return self.node(agent).network

    def save(self) -> tuple[Any, ...]:
        nodes = {key: node.save() for key, node in self.nodes.items()}
        disks = {path: copy.copy(disk) for path, disk in WORLDS.items()}
        return nodes, disks, dict(self.web), dict(self._homes)

    def restore(self, saved: tuple[Any, ...]) -> None:
        nodes, disks, web, homes = saved
        self.trouble = None
        for key in list(self.nodes):
            if key in nodes:
                self.nodes[key].restore(nodes[key])
            else:
                self.nodes.pop(key).journal.close()
                self._machines.pop(key)
        WORLDS.clear()
        WORLDS.update({path: copy.copy(disk) for path, disk in disks.items()})
        self.web, self._homes = dict(web), dict(homes)


def _watched(method: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        for tell in BUSY:
            tell()
        return method(*args, **kwargs)

    return watched
