"""The one hypervisor of this machine: opened at start, asked by every handler, telling control what it sees."""

import logging
import threading

from cloud.agent.config import RUN_DIRECTORY
from cloud.agent.registry import Machine
from cloud.common.driver import DriverError, Unsupported
from compute.drivers import registry
from compute.drivers.base import Hypervisor
from compute.messages import EVENT_TOPIC, INVENTORY_TOPIC, DomainInventory

log = logging.getLogger(__name__)

RESOURCE = "hypervisor"
INVENTORY_EVERY_S = 60.0


def of(machine: Machine) -> Hypervisor:
    """The machine's hypervisor. Raises Unsupported on a machine that has none."""
    found = machine.resources.get(RESOURCE)
    if not isinstance(found, Hypervisor):
        raise Unsupported("no_hypervisor", "This machine runs no hypervisor, or its driver did not start.")
    return found


def begin(machine: Machine, hypervisor: Hypervisor | None = None) -> None:
    """Open the hypervisor that the machine is configured for; from now on events and inventories are published.

    A full inventory is told at each connection to it, and each INVENTORY_EVERY_S for what slipped through. Raises
    Unsupported when the driver's library is missing.
    """
    if hypervisor is None:
        name = machine.config.hypervisor
        hypervisor = registry.create(name, state_dir=machine.state_dir, run_dir=RUN_DIRECTORY)
    machine.resources[RESOURCE] = hypervisor
    hypervisor.open(
        on_event=lambda event: machine.publish(EVENT_TOPIC, event.to_document()),
        on_connect=lambda: tell_inventory(machine, "connected"),
    )
    threading.Thread(target=_keep_telling, args=(machine,), name="inventory", daemon=True).start()


def tell_inventory(machine: Machine, cause: str) -> None:
    """Publish every domain there is; called in order with the events, so that no older news overtakes newer ones."""
    try:
        found = DomainInventory(of(machine).inventory(), cause)
    except DriverError as error:
        log.warning("no inventory of domains: %s", error)
        return
    machine.publish(INVENTORY_TOPIC, found.to_document())


def _keep_telling(machine: Machine) -> None:
    while not machine.is_stopping.wait(INVENTORY_EVERY_S):
        of(machine).in_order(lambda: tell_inventory(machine, "periodic"))
    of(machine).close()
