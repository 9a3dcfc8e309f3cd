"""A cloud with simulated hosts: real web, workers, Redis and PostgreSQL, and one process that is all the agents."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cloud import Cloud
from launcher.instance import Instance
from launcher.steps import Steps

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTS = 100


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """The control side alone, unless the lab is up already; without simulated hosts again at the end."""
    if os.geteuid():
        pytest.skip("the lab needs root")
    said = io.StringIO()
    cloud = Cloud(Instance.of_checkout(CHECKOUT), Steps(said))
    was_up = not cloud.supervisor.missing(["web", "worker"])
    cloud.up_control()
    cloud.simulate(HOSTS)
    print(said.getvalue())
    yield cloud
    cloud.simulate(0)
    if not was_up:
        cloud.down()
