"""The one hypervisor of this machine: opened at start, asked by every handler, telling control what it sees."""

import dataclasses
import logging
from collections.abc import Callable

from cloud.agent import jitter
from cloud.agent.config import RUN_DIRECTORY
from cloud.agent.going_down import GoingDown
from cloud.agent.registry import Machine
from cloud.common.driver import DriverError, Unsupported
from compute.drivers import registry
from compute.drivers.base import Hypervisor
from compute.messages import EVENT_TOPIC, HOST_GOES_DOWN, INVENTORY_TOPIC, DomainEvent, DomainInventory

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
        hypervisor = registry.create(
            name,
            state_dir=machine.state_dir,
            run_dir=RUN_DIRECTORY,
            clockwork=machine.clockwork,
            faults=machine.faults,
        )
    machine.resources[RESOURCE] = hypervisor
    machine.endings.append(hypervisor.close)
    is_going_down = GoingDown()
    hypervisor.open(
        on_event=lambda event: tell_event(machine, event, is_going_down),
        on_connect=lambda: tell_inventory(machine, "connected"),
    )
    first_s = jitter.between(0.5 * INVENTORY_EVERY_S, INVENTORY_EVERY_S)
    machine.clockwork.routine(lambda: _tell_again(machine), name="inventory", first_s=first_s)


def tell_event(machine: Machine, event: DomainEvent, is_going_down: Callable[[], bool]) -> None:
    """Publish what happened to a domain; a guest that ends while its machine goes down did not wish to."""
    if event.state == "stopped" and is_going_down():
        event = dataclasses.replace(event, reason=HOST_GOES_DOWN)
    machine.publish(EVENT_TOPIC, event.to_document())


def tell_inventory(machine: Machine, cause: str) -> None:
    """Publish every domain there is; called in order with the events, so that no older news overtakes newer ones."""
    try:
        found = DomainInventory(of(machine).inventory(), cause)
    except DriverError as error:
        log.warning("no inventory of domains: %s", error)
        return
    machine.publish(INVENTORY_TOPIC, found.to_document())


def _tell_again(machine: Machine) -> float | None:
    if machine.is_stopping.is_set():
        return None
    of(machine).in_order(lambda: tell_inventory(machine, "periodic"))
    return INVENTORY_EVERY_S
