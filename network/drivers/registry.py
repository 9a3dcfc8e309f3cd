"""Which network drivers there are. Loaded by name: only the chosen one imports its native library."""

from importlib import import_module
from pathlib import Path
from typing import cast

from cloud.common.faults import Faults
from network.drivers.base import NetworkDriver

DRIVERS = {
    "linux": "network.drivers.linux.driver:LinuxNetwork",
    "fake": "network.drivers.fake:FakeNetwork",
}


def load(name: str, state_dir: Path, faults: Faults | None = None) -> NetworkDriver:
    """The driver of this name; `state_dir` is where it may keep files, `faults` are those of a simulated machine.

    Raises KeyError when there is none.
    """
    module, _, cls = DRIVERS[name].partition(":")
    made = getattr(import_module(module), cls)
    return cast(NetworkDriver, made(state_dir, faults) if name == "fake" else made(state_dir))
