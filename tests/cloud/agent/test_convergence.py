"""Desired state: newest wins, told at once, mended, remembered."""

import threading

import pytest

from cloud.agent import registry
from cloud.agent.convergence import Convergence
from cloud.common.driver import Rejected, Transient
from cloud.common.wire import Desired
from tests.cloud.agent.waiting import wait_until


@pytest.fixture
def told():
    return []


@pytest.fixture
def converged(monkeypatch):
    """Bodies that the section `networks` was converged to."""
    bodies = []
    monkeypatch.setitem(registry.SECTIONS, "networks", lambda body, machine: bodies.append(body))
    return bodies


@pytest.fixture
def make(machine, journal, told):
    made = []

    def build(boot_id="boot-1", **pauses):
        convergence = Convergence(machine, journal, boot_id, told.append, **pauses)
        made.append(convergence)
        return convergence

    yield build
    for convergence in made:
        convergence.stop()


def desired(number, body=None, section="networks"):
    return Desired("agent", section, number, body or {"number": number})


def test_converges_and_tells(make, told, converged):
    convergence = make()
    convergence.offer(desired(3))
    held = wait_until(lambda: told and told[0])
    assert (held.section, held.number, held.failure) == ("networks", 3, None)
    assert convergence.held() == {"networks": 3}
    assert converged == [{"number": 3}]


def test_older_number_changes_nothing_and_hears_what_is_held(make, told, converged):
    convergence = make()
    convergence.offer(desired(3))
    wait_until(lambda: told)
    convergence.offer(desired(2))
    assert [h.number for h in told] == [3, 3]
    assert converged == [{"number": 3}]


def test_numbers_that_come_while_it_converges_are_coalesced(make, told, monkeypatch):
    gate, seen = threading.Event(), []

    def slow(body, machine):
        seen.append(body["number"])
        assert gate.wait(10)

    monkeypatch.setitem(registry.SECTIONS, "networks", slow)
    convergence = make()
    for number in range(1, 6):
        convergence.offer(desired(number))
        wait_until(lambda: seen)
    gate.set()
    wait_until(lambda: told and told[-1].number == 5)
    assert seen == [1, 5]


def test_unknown_section_is_unsupported(make, told):
    make().offer(desired(1, section="unheard_of"))
    assert told[0].failure.code == "unknown_section"


def test_failure_is_told_once_and_tried_again(make, told, monkeypatch):
    attempts = []

    def converge(body, machine):
        attempts.append(body)
        if len(attempts) < 3:
            raise Transient("busy", "The bridge is busy.")

    monkeypatch.setitem(registry.SECTIONS, "networks", converge)
    convergence = make(first_retry_s=0.02)
    convergence.offer(desired(1))
    wait_until(lambda: convergence.held() == {"networks": 1})
    assert [(h.number, h.failure and h.failure.code) for h in told] == [(1, "busy"), (1, None)]
    assert convergence.errors() == {}


def test_failed_section_is_not_held_and_shown(make, told, monkeypatch):
    def converge(body, machine):
        raise Rejected("no_interface", "There is no eth7.")

    monkeypatch.setitem(registry.SECTIONS, "networks", converge)
    convergence = make()
    convergence.offer(desired(1))
    wait_until(lambda: told)
    assert convergence.held() == {}
    assert convergence.errors() == {"networks": "no_interface: There is no eth7."}


def test_section_that_waits_for_another_is_tried_when_that_one_holds(make, told, monkeypatch):
    bridges = []

    def dhcp(body, machine):
        if not bridges:
            raise Rejected("no_bridge", "There is no bridge yet.")

    monkeypatch.setitem(registry.SECTIONS, "dhcp", dhcp)
    monkeypatch.setitem(registry.SECTIONS, "networks", lambda body, machine: bridges.append(body))
    convergence = make(first_retry_s=3600.0, drift_s=3600.0)
    convergence.offer(desired(1, section="dhcp"))
    wait_until(convergence.errors)
    convergence.offer(desired(1))
    wait_until(lambda: convergence.held() == {"dhcp": 1, "networks": 1})


def test_drift_is_mended_without_being_asked(make, converged):
    convergence = make(drift_s=0.05)
    convergence.offer(desired(1))
    wait_until(lambda: len(converged) >= 3)


def test_restarted_agent_still_holds_and_converges_again(make, converged, told):
    first = make()
    first.offer(desired(4))
    wait_until(lambda: first.held())
    first.stop()
    second = make()
    second.start()
    assert second.held() == {"networks": 4}
    wait_until(lambda: len(converged) == 2)


def test_restarted_machine_holds_nothing_until_it_has_converged(make, told, monkeypatch):
    gate = threading.Event()
    gate.set()
    monkeypatch.setitem(registry.SECTIONS, "networks", lambda body, machine: gate.wait(10))
    first = make("boot-1")
    first.offer(desired(4))
    wait_until(lambda: first.held())
    first.stop()
    gate.clear()
    second = make("boot-2")
    second.start()
    assert second.held() == {}
    gate.set()
    wait_until(lambda: second.held() == {"networks": 4})
    assert told[-1].number == 4
