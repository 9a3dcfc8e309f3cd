"""A thousand instances at once on a hundred simulated hosts: nothing twice, nothing lost, nothing stuck."""

import json
import time

from launcher import load
from launcher.cloud import Cloud
from tests.scale.conftest import HOSTS

COUNT = 1000


def settled(cloud: Cloud, seconds: float = 30) -> list[str]:
    """What is wrong with the books once the last words of jobs and hosts are heard."""
    end = time.monotonic() + seconds
    while (wrong := load.ledger(cloud)) and time.monotonic() < end:
        continue
    return wrong


def test_a_thousand_creates_at_once_and_all_of_them_gone_again(cloud: Cloud) -> None:
    made = load.create(cloud, COUNT, clients=4, each=10)
    print(f"create: {made}")
    assert (made.accepted, made.done, made.left) == (COUNT, COUNT, 0), made.refused
    assert settled(cloud) == []
    gone = load.remove(cloud, clients=4)
    print(f"remove: {gone}")
    assert (gone.accepted, gone.left) == (COUNT, 0), gone.refused
    assert settled(cloud) == []


def test_what_no_host_has_room_for_is_refused_and_leaves_nothing(cloud: Cloud) -> None:
    api = load.Api.of(cloud)
    body = {
        "name": "huge",
        "image": api.named("images", load.SIMULATED),
        "cpu": 1,
        "memory_bytes": 1 << 42,
        "nics": [{"l3_network": api.named("l3-networks", load.SIMULATED)}],
        "zone": api.named("zones", load.SIMULATED),
    }
    status, said = api.call("POST", "instances/", body)
    assert status == 409, json.dumps(said)
    assert settled(cloud) == []


def test_the_simulator_is_one_line_of_the_status(cloud: Cloud) -> None:
    rows = [row for row in cloud.status() if row[0] == "simulator"]
    assert [(name, state) for name, state, _ in rows] == [("simulator", "running")]
    assert load.Api.of(cloud).count("hosts/?connection=connected") >= HOSTS
