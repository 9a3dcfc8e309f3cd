"""kill -9 of each process while an instance is made, one is stopped and one is destroyed; two at a time; no cable.

Whatever happens, each act ends well or is undone whole, and the doctor finds nothing afterwards.
"""

import itertools
import time
from datetime import date

import pytest

from launcher.cloud import Cloud
from tests.lab import chaos
from tests.lab.client import Api, eventually

PROCESSES = (*chaos.CONTROL, *chaos.ON_HOST)
PAIRS = list(itertools.combinations(PROCESSES, 2))
# Two of the pairs each day, so that all have their turn.
TODAY = {(date.today().toordinal() * 2 + number) % len(PAIRS) for number in range(2)}
CUT_S = 60

pytestmark = pytest.mark.chaos


# First: nobody is called disconnected in the first minute after Redis was killed.
def test_no_cable_for_a_minute(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    acts = chaos.begin(api, "cable", tidy)
    host = api.named("hosts", chaos.HOST)
    cloud.machine(chaos.HOST).cut("eth0")
    try:
        cut_at = time.monotonic()
        eventually(lambda: api.get(host["url"])["connection"] == "disconnected", 90, "the host is disconnected")
        eventually(lambda: time.monotonic() - cut_at > CUT_S, CUT_S + 5, "a minute is over")
    finally:
        cloud.machine(chaos.HOST).mend("eth0")
    chaos.settle(api, cloud, acts)
    chaos.expect_health(cloud)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_killed(api: Api, cloud: Cloud, tidy: list[str], process: str) -> None:
    acts = chaos.begin(api, f"kill-{process}", tidy)
    is_back = chaos.kill(cloud, process)
    eventually(lambda: is_back(api), 60, f"{process} is back")
    chaos.settle(api, cloud, acts)
    chaos.expect_health(cloud)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id="-".join(pair), marks=() if number in TODAY else (pytest.mark.full,))
        for number, pair in enumerate(PAIRS)
    ],
)
def test_two_processes_killed(api: Api, cloud: Cloud, tidy: list[str], pair: tuple[str, str]) -> None:
    acts = chaos.begin(api, f"kill-{'-'.join(pair)}", tidy)
    are_back = [chaos.kill(cloud, process) for process in pair]
    eventually(lambda: all(is_back(api) for is_back in are_back), 60, f"{pair} are back")
    chaos.settle(api, cloud, acts)
    chaos.expect_health(cloud)
