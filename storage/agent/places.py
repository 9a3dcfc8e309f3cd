"""Which driver serves a storage on this machine: a simulated host's storages are simulated as well."""

from collections import defaultdict
from typing import cast

from cloud.agent.registry import Machine
from storage.drivers import registry
from storage.drivers.base import ImageStore, PrimaryStorage
from storage.drivers.fake import WORLDS, FakeImageStore, FakeStorage, World
from storage.messages import StoragePlace

IMAGE_KINDS = frozenset({"imagestore"})


def primary(machine: Machine, place: StoragePlace) -> PrimaryStorage:
    if _is_simulated(machine):
        return FakeStorage(place.path, _worlds(machine), machine.faults)
    return registry.primary(place.kind, place.path)


def image_store(machine: Machine, place: StoragePlace) -> ImageStore:
    if _is_simulated(machine):
        return FakeImageStore(place.path, _worlds(machine), machine.faults)
    return registry.image_store(place.kind, place.path)


def _is_simulated(machine: Machine) -> bool:
    return machine.config.hypervisor == "fake"


def _worlds(machine: Machine) -> dict[str, World]:
    """What is on the machine's storages, by path: its own in the simulator, else that of all fakes of the process."""
    if machine.disk is None:
        return WORLDS
    return cast("dict[str, World]", machine.disk.setdefault("storages", defaultdict(World)))
