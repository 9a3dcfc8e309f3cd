"""What tests of compute share: a small cloud in memory, reached through the job engine's wires."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.jobs.conftest import Line
from tests.cloud.jobs.conftest import line as _wires  # noqa: F401
from tests.compute.simulated import Hosts
from tests.compute.world import World
from tests.storage.conftest import _pki, places  # noqa: F401


@pytest.fixture
def line(transactional_db: None, _wires: Line) -> Line:  # noqa: F811
    """The wires of the job engine. Jobs begin on commit, so the tests that ask for this one commit."""
    return _wires


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: Line, places: Any) -> Iterator[Hosts]:  # noqa: F811
    made = Hosts(monkeypatch, tmp_path, line)
    made.forget()
    yield made
    made.forget()


@pytest.fixture
def world(machines: Hosts) -> World:
    """One host."""
    return World(machines)


@pytest.fixture
def still(
    db: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    _wires: Line,  # noqa: F811
    places: Any,  # noqa: F811
) -> Iterator[World]:
    """A world of two hosts in which no job begins, for nothing commits: for what services refuse, book and open."""
    made = Hosts(monkeypatch, tmp_path, _wires)
    made.forget()
    yield World(made, hosts=2)
    made.forget()


@pytest.fixture
def two_hosts(machines: Hosts) -> World:
    return World(machines, hosts=2)
