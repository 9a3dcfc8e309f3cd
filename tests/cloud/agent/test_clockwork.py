"""Routines: at their times, when woken, never twice at once."""

import threading
import time

import pytest

from cloud.agent import clockwork as module
from cloud.agent.clockwork import Clockwork
from tests.cloud.agent.waiting import wait_until


@pytest.fixture
def clockwork():
    made = Clockwork(8)
    yield made
    made.stop()


def test_runs_at_once_and_again_as_it_says(clockwork):
    times = []

    def act():
        times.append(time.monotonic())
        return 0.05 if len(times) < 3 else None

    clockwork.routine(act, name="act")
    wait_until(lambda: len(times) == 3)
    assert times[1] - times[0] >= 0.05
    assert times[2] - times[1] >= 0.05


def test_one_that_waits_runs_when_woken(clockwork):
    runs = []
    routine = clockwork.routine(lambda: runs.append(1), name="act", first_s=None)
    later = []
    clockwork.routine(lambda: later.append(1), name="later", first_s=0.05)
    wait_until(lambda: later)
    assert runs == []
    routine.wake()
    wait_until(lambda: runs == [1])


def test_woken_while_it_runs_it_runs_once_more_and_never_twice_at_once(clockwork):
    gate, began, at_once, most = threading.Event(), [], [0], [0]

    def act():
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        began.append(1)
        gate.wait(5)
        at_once[0] -= 1

    routine = clockwork.routine(act, name="act")
    wait_until(lambda: began)
    for _ in range(5):
        routine.wake()
    gate.set()
    wait_until(lambda: len(began) == 2 and at_once[0] == 0)
    assert most == [1]


def test_what_was_woken_is_not_run_again_at_the_time_planned_before(clockwork):
    runs, other = [], []

    def act():
        runs.append(1)
        return 0.1 if len(runs) == 1 else None

    routine = clockwork.routine(act, name="act")
    wait_until(lambda: runs == [1])
    routine.wake()
    wait_until(lambda: len(runs) == 2)
    clockwork.routine(lambda: other.append(1), name="other", first_s=0.2)
    wait_until(lambda: other)
    assert len(runs) == 2


def test_one_that_was_stopped_runs_no_more(clockwork):
    runs, other = [], []

    def act():
        runs.append(1)
        return 0.01

    routine = clockwork.routine(act, name="act")
    wait_until(lambda: len(runs) >= 2)
    routine.stop()
    routine.wake()
    clockwork.routine(lambda: other.append(len(runs)), name="other", first_s=0.1)
    wait_until(lambda: other)
    clockwork.routine(lambda: other.append(len(runs)), name="other", first_s=0.1)
    wait_until(lambda: len(other) == 2)
    assert other[0] == other[1]


def test_a_defect_is_logged_and_tried_again(clockwork, monkeypatch, caplog):
    monkeypatch.setattr(module, "AFTER_A_DEFECT_S", 0.02)
    runs = []

    def act():
        runs.append(1)
        if len(runs) == 1:
            raise ZeroDivisionError

    clockwork.routine(act, name="careless")
    wait_until(lambda: len(runs) == 2)
    assert "careless failed" in caplog.text


def test_earlier_ones_pass_later_ones(clockwork):
    order = []
    clockwork.routine(lambda: order.append("late"), name="late", first_s=0.2)
    clockwork.routine(lambda: order.append("early"), name="early", first_s=0.05)
    wait_until(lambda: len(order) == 2)
    assert order == ["early", "late"]
