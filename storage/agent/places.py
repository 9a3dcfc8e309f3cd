"""Which driver serves a storage on this machine: a simulated host's storages are simulated as well."""

from cloud.agent.registry import Machine
from storage.drivers import registry
from storage.drivers.base import ImageStore, PrimaryStorage
from storage.messages import StoragePlace

IMAGE_KINDS = frozenset({"imagestore"})


def primary(machine: Machine, place: StoragePlace) -> PrimaryStorage:
    return registry.primary(_kind(machine, place), place.path)


def image_store(machine: Machine, place: StoragePlace) -> ImageStore:
    return registry.image_store(_kind(machine, place), place.path)


def _kind(machine: Machine, place: StoragePlace) -> str:
    return "fake" if machine.config.hypervisor == "fake" else place.kind
