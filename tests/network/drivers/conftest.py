"""The hosts that the drivers' tests run on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.drivers.world import Driven, FakeHost, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(f"nt{os.getpid()}", tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.lab)])
def host(request: pytest.FixtureRequest) -> Driven:
    """One host, of each driver."""
    if request.param == "fake":
        return FakeHost()
    made: World = request.getfixturevalue("world")
    return made.a
