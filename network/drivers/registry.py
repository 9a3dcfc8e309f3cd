"""Which network drivers there are. Loaded by name: only the chosen one imports its native library."""

from importlib import import_module
from pathlib import Path
from typing import cast

from network.drivers.base import NetworkDriver

DRIVERS = {
    "linux": "network.drivers.linux.driver:LinuxNetwork",
    "fake": "network.drivers.fake:FakeNetwork",
}


def load(name: str, state_dir: Path) -> NetworkDriver:
    """The driver of this name; `state_dir` is where it may keep files. Raises KeyError when there is none."""
    module, _, cls = DRIVERS[name].partition(":")
    return cast(NetworkDriver, getattr(import_module(module), cls)(state_dir))
