"""The lab: a whole cloud on this machine, brought up once for all tests of the folder, as `./mica up` does it."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cloud import Cloud
from launcher.instance import Instance
from launcher.steps import Steps
from tests.lab.client import Api

CHECKOUT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(420))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    if os.geteuid():
        pytest.skip("the lab needs root")
    said = io.StringIO()
    cloud = Cloud(Instance.of_checkout(CHECKOUT), Steps(said))
    was_up = cloud.is_up()
    cloud.up()
    print(said.getvalue())
    yield cloud
    if not was_up:
        cloud.down()


@pytest.fixture(scope="session")
def api(cloud: Cloud) -> Iterator[Api]:
    """The API as an administrator with a token sees it, by HTTP."""
    token = cloud.run_manage("token", "admin").strip().splitlines()[-1]
    with Api(f"http://127.0.0.1:{cloud.instance.port}", token) as client:
        yield client


@pytest.fixture
def tidy(api: Api) -> Iterator[list[str]]:
    """Names of instances that a test makes: expunged at its end, whatever happened."""
    names: list[str] = []
    yield names
    for name in names:
        for instance in api.list("instances", q=name):
            if instance["name"] == name:
                api.expunge(instance)
