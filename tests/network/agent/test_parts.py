"""One network that fails on a host, from its driver to control: it is told apart from those that are served."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.agent.config import AgentConfig
from cloud.agent.convergence import Convergence
from cloud.agent.journal import Journal
from cloud.agent.registry import SECTIONS, Machine
from cloud.common.driver import Rejected
from cloud.common.wire import Desired, Held
from network.agent import handlers as _handlers  # noqa: F401
from network.agent.machine import driver
from network.drivers.fake import FakeNetwork
from network.messages import BridgeSpec, NetworksDesired
from tests.cloud.agent.waiting import wait_until

GOOD, BAD = str(uuid.uuid4()), str(uuid.uuid4())
REFUSED = Rejected("dhcp_refused", "dnsmasq does not start")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine("agent", "host", AgentConfig("agent", hypervisor="fake"), tmp_path)


@pytest.fixture
def network(machine: Machine) -> FakeNetwork:
    found = driver(machine)
    assert isinstance(found, FakeNetwork)
    found.failing[BAD] = REFUSED
    return found


@pytest.fixture
def told() -> list[Held]:
    return []


@pytest.fixture
def begin(machine: Machine, tmp_path: Path, told: list[Held]) -> Iterator[Callable[..., Convergence]]:
    journal, made = Journal(tmp_path / "journal.sqlite3", "agent"), []

    def build(**pauses: float) -> Convergence:
        made.append(Convergence(machine, journal, "boot", told.append, **{"first_retry_s": 3600.0, **pauses}))
        return made[-1]

    yield build
    for each in made:
        each.stop()


def wanted(number: int) -> Desired:
    specs = [BridgeSpec(l2, 1500, "physical", interface="eth2") for l2 in (GOOD, BAD)]
    return Desired("agent", "networks", number, NetworksDesired(specs).to_document())


def codes(held: Held) -> dict[str, str]:
    return {part: each.code for part, each in held.failures.items()}


def test_the_number_is_held_and_the_part_is_named(
    begin: Callable[..., Convergence], network: FakeNetwork, told: list[Held]
) -> None:
    convergence = begin()
    convergence.offer(wanted(3))
    held = wait_until(lambda: told and told[0])
    assert (held.number, held.failure, codes(held)) == (3, None, {BAD: "dhcp_refused"})
    assert set(network.bridges) == {GOOD}
    assert convergence.held() == {"networks": 3}
    said = {"nature": "rejected", "code": "dhcp_refused", "detail": "dnsmasq does not start"}
    assert convergence.failures() == {"networks": {BAD: said}}
    assert BAD in convergence.errors()["networks"]
    assert Held.from_document(held.to_document()) == held


def test_a_part_is_tried_again_and_told_when_it_is_mended(
    begin: Callable[..., Convergence], network: FakeNetwork, told: list[Held]
) -> None:
    convergence = begin(first_retry_s=0.02)
    convergence.offer(wanted(1))
    wait_until(lambda: told)
    network.failing.clear()
    wait_until(lambda: len(told) > 1)
    assert [(held.number, codes(held)) for held in told] == [(1, {BAD: "dhcp_refused"}), (1, {})]
    assert convergence.failures() == {"networks": {}}
    assert convergence.errors() == {}


def test_who_asks_again_hears_it_again(
    begin: Callable[..., Convergence], network: FakeNetwork, told: list[Held]
) -> None:
    convergence = begin()
    for number in (1, 2):
        convergence.offer(wanted(number))
        wait_until(lambda number=number: told and told[-1].number == number)
    convergence.offer(wanted(2))
    assert [(held.number, codes(held)) for held in told[1:]] == [(2, {BAD: "dhcp_refused"})] * 2


def test_a_new_process_tells_what_it_finds(
    begin: Callable[..., Convergence], network: FakeNetwork, told: list[Held]
) -> None:
    """What failed before the agent was restarted works now: control hears of it, though the number is held already."""
    first = begin()
    first.offer(wanted(1))
    wait_until(lambda: told)
    first.stop()
    network.failing.clear()
    again = begin()
    assert again.failures() == {}  # nothing was looked at
    again.start()
    wait_until(lambda: len(told) > 1)
    assert (told[1].number, told[1].failures) == (1, {})


def test_a_section_that_failed_is_told_again_when_asked(
    begin: Callable[..., Convergence], told: list[Held], monkeypatch: Any
) -> None:
    def converge(body: Any, machine: Machine) -> None:
        raise Rejected("no_netlink", "The kernel does not answer.")

    monkeypatch.setitem(SECTIONS, "networks", converge)
    convergence = begin()
    for count in (1, 2):
        convergence.offer(wanted(1))
        wait_until(lambda count=count: len(told) == count)
    assert [held.failure and held.failure.code for held in told] == ["no_netlink"] * 2
