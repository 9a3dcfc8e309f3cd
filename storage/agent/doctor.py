"""What a machine tells the doctor of its storages, and how it takes things on them out of the way."""

from dataclasses import asdict

from cloud.agent.registry import Machine, inspector, keeper
from cloud.common.driver import DriverError
from cloud.common.wire import Document, Failure
from storage.agent import places
from storage.drivers.base import Quarantining
from storage.messages import THING_KEEPER, StoragePlace


@inspector("storage")
def look(asked: Document, machine: Machine) -> Document:
    """{"places": {uuid: {"place": StoragePlace, "found": [FoundThing], "aside": [AsideThing]}}, "failures": {…}}.

    `asked` is {"places": [StoragePlace]}; one storage that cannot be looked at does not hide the others.
    """
    seen: Document = {"places": {}, "failures": {}}
    for document in asked.get("places", []):
        place = StoragePlace(**document)
        try:
            storage = _storage(machine, place)
            seen["places"][place.uuid] = {
                "place": document,
                "found": [asdict(thing) for thing in storage.found()],
                "aside": [asdict(thing) for thing in storage.aside()],
            }
        except DriverError as error:
            seen["failures"][place.uuid] = Failure(error.nature, error.code, error.detail).to_document()
    return seen


class StorageKeeper:
    """`thing` is {"place": StoragePlace, "kind": …, "name": …}."""

    def set_aside(self, id: str, thing: Document, machine: Machine) -> None:
        _storage_of(thing, machine).set_aside(id, thing["kind"], thing["name"])

    def put_back(self, id: str, thing: Document, machine: Machine) -> None:
        _storage_of(thing, machine).put_back(id)

    def purge(self, id: str, thing: Document, machine: Machine) -> None:
        _storage_of(thing, machine).purge(id)


def _storage_of(thing: Document, machine: Machine) -> Quarantining:
    return _storage(machine, StoragePlace(**thing["place"]))


def _storage(machine: Machine, place: StoragePlace) -> Quarantining:
    if place.kind in places.IMAGE_KINDS:
        return places.image_store(machine, place)
    return places.primary(machine, place)


keeper(THING_KEEPER, StorageKeeper())
