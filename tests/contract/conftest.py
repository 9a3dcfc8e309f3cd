"""The worlds that drivers are held against the contract in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.libvirt_machine import LibvirtMachine
from tests.contract.worlds import FakeWorld, LibvirtWorld, MockWorld, World


@pytest.fixture(scope="session")
def libvirt_machine() -> Iterator[LibvirtMachine]:
    """A libvirtd of our own for the whole session."""
    machine = LibvirtMachine()
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()


@pytest.fixture(params=["fake", "mock", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A hypervisor of each kind."""
    made: World
    if request.param == "fake":
        made = FakeWorld()
    elif request.param == "mock":
        made = MockWorld(tmp_path)
    else:
        made = LibvirtWorld(request.getfixturevalue("libvirt_machine"), tmp_path)
    yield made
    made.close()
