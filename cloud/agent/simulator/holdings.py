"""What the simulated machines hold at this moment, for those who compare it with control's books.

Whoever wants to know writes `holdings.wanted` into the simulator's directory and finds `holdings.json` there.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.agent.simulator.config import save
from cloud.agent.simulator.machines import SimulatedMachine
from cloud.common.wire import Document

WANTED, HOLDINGS = "holdings.wanted", "holdings.json"


def answer(directory: Path, machines: Mapping[str, SimulatedMachine]) -> None:
    """Write the holdings when somebody wants them."""
    wanted = directory / WANTED
    if not wanted.exists():
        return
    save(directory / HOLDINGS, {key: of(machine) for key, machine in list(machines.items())})
    with contextlib.suppress(FileNotFoundError):
        wanted.unlink()


def of(simulated: SimulatedMachine) -> Document:
    """{name, domains: {uuid: state}, volumes: [uuid], images: [uuid], leases: [[mac, address]], in_work: [key]}."""
    machine = simulated.machine
    resources: dict[str, Any] = machine.resources if machine else {}
    hypervisor, network = resources.get("hypervisor"), resources.get("network.driver")
    worlds = list(simulated.disk.get("storages", {}).values())
    return {
        "name": simulated.about.name,
        "domains": {each.uuid: each.state for each in hypervisor.inventory()} if hypervisor else {},
        "volumes": [uuid for world in worlds for uuid in world.volumes],
        "images": [uuid for world in worlds for uuid in world.images],
        "leases": [[host.mac, host.ip] for server in network.servers.values() for host in server.hosts]
        if network
        else [],
    }
