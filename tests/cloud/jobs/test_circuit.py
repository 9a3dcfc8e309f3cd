"""The breaker of a machine that lives but does not answer."""

import json
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from cloud.common.errors import Unavailable
from cloud.common.wire import Answer, Query
from cloud.jobs import agents, circuit
from compute.messages import Domains


@pytest.fixture
def agent() -> str:
    made = str(uuid4())
    yield made
    circuit.answered(made)
    agents.redis().delete(f"mica:agent:{made}:alive")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        ahead_s = 0.0

    real = time.time
    monkeypatch.setattr("cloud.jobs.circuit.time", type("T", (), {"time": lambda: real() + Clock.ahead_s}))
    return Clock


def lives(agent: str) -> None:
    agents.redis().set(f"mica:agent:{agent}:alive", "{}", ex=60)


def ask(agent: str, timeout: float = 0.05) -> Any:
    return agents.ask(agent, Domains(), timeout=timeout)


def code_of(agent: str) -> str:
    with pytest.raises(Unavailable) as refused:
        ask(agent)
    return refused.value.code


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine that answers whatever it is asked."""

    def send(task: str, agent: Any, message: Any, **_: Any) -> None:
        assert isinstance(message, Query)
        answer = Answer(message.id, str(agent), {"domains": []}).to_document()
        agents.redis().rpush(f"mica:answer:{message.id}", json.dumps(answer))

    return lambda: monkeypatch.setattr(agents, "_send", send)


def test_it_opens_after_three_silences_and_refuses_at_once(agent: str, clock: Any) -> None:
    lives(agent)
    assert [code_of(agent) for _ in range(3)] == ["agent_silent"] * 3
    began = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        ask(agent, timeout=5)
    assert refused.value.code == "circuit_open"
    assert time.monotonic() - began < 1
    assert refused.value.extra["retry_after_s"] == 10
    assert circuit.opened()[agent]["reason"] == circuit.QUERY


def test_a_machine_that_is_gone_is_no_case_for_it(agent: str) -> None:
    assert [code_of(agent) for _ in range(5)] == ["agent_silent"] * 5
    assert agent not in circuit.opened()


def test_an_answer_in_between_starts_the_count_anew(agent: str) -> None:
    for _ in range(4):
        circuit.failed(agent, circuit.QUERY)
        circuit.failed(agent, circuit.COMMAND)
        circuit.answered(agent)
    circuit.expect_closed(agent)
    assert agent not in circuit.opened()


def test_one_may_try_when_its_time_is_over_and_silence_makes_it_longer(agent: str, clock: Any) -> None:
    lives(agent)
    for _ in range(3):
        code_of(agent)
    clock.ahead_s = 11
    tried, refused = [], []

    def attempt() -> None:
        try:
            circuit.expect_closed(agent)
            tried.append(1)
        except Unavailable:
            refused.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(tried), len(refused)) == (1, 7)
    circuit.failed(agent, circuit.QUERY)
    held = circuit.opened()[agent]
    assert (held["failures"], round(held["until"] - time.time() - clock.ahead_s)) == (4, 20)


def test_it_never_waits_longer_than_five_minutes(agent: str) -> None:
    for _ in range(20):
        circuit.failed(agent, circuit.COMMAND)
    assert circuit.opened()[agent]["until"] - time.time() <= circuit.LONGEST_PAUSE_S


def test_an_answer_closes_it(agent: str, clock: Any, answering: Any) -> None:
    lives(agent)
    for _ in range(3):
        code_of(agent)
    clock.ahead_s = 11
    answering()
    assert ask(agent, timeout=2) == {"domains": []}
    assert ask(agent, timeout=2) == {"domains": []}
    assert agent not in circuit.opened()


def test_redis_may_forget_it(agent: str) -> None:
    for _ in range(3):
        circuit.failed(agent, circuit.QUERY)
    agents.redis().delete(f"mica:circuit:{agent}")
    circuit.expect_closed(agent)
    assert agent not in circuit.opened()
    assert agents.redis().zscore("mica:circuits", agent) is None
