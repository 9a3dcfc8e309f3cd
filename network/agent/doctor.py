"""What a host tells the doctor of its networks, and how it takes away an interface that nobody wants."""

from cloud.agent.registry import Machine, inspector, keeper
from cloud.common.driver import Unsupported
from cloud.common.wire import Document
from network.agent.machine import driver
from network.messages import DEVICE_KEEPER


@inspector("network")
def look(asked: Document, machine: Machine) -> Document:
    """The document of SeenNetworks."""
    return driver(machine).seen().to_document()


class DeviceKeeper:
    """`thing` is {"name": …}. An interface holds nothing: it is removed, and made again by who wants it."""

    def set_aside(self, id: str, thing: Document, machine: Machine) -> None:
        driver(machine).remove(thing["name"])

    def put_back(self, id: str, thing: Document, machine: Machine) -> None:
        raise Unsupported("nothing_kept", "Of an interface nothing is kept that could be put back.")

    def purge(self, id: str, thing: Document, machine: Machine) -> None:
        return None


keeper(DEVICE_KEEPER, DeviceKeeper())
