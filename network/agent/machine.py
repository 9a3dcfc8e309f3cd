"""The machine's network driver."""

import threading
from typing import cast

from cloud.agent.registry import Machine
from network.drivers import registry
from network.drivers.base import NetworkDriver

_KEY = "network.driver"
_lock = threading.Lock()


def driver(machine: Machine) -> NetworkDriver:
    """The machine's network driver, made once: simulated on a simulated hypervisor, else the kernel's."""
    with _lock:
        if _KEY not in machine.resources:
            name = "fake" if machine.config.hypervisor == "fake" else "linux"
            machine.resources[_KEY] = registry.load(name, machine.state_dir, machine.faults)
        return cast(NetworkDriver, machine.resources[_KEY])
