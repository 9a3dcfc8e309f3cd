"""What agents tell reaches who registered for it, and nobody else."""

from typing import Any
from uuid import uuid4

import pytest

from cloud.common.wire import Observation
from cloud.infra import observations
from cloud.infra.models import Agent
from tests.factories.infra import AgentFactory


@pytest.fixture(autouse=True)
def _own_receivers(monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    monkeypatch.setattr(observations, "_receivers", {})


def told(agent: Any, topic: str = "a.topic") -> dict[str, Any]:
    return Observation(str(agent), topic, {"what": 1}, 0.0).to_document()


def test_told_to_all_who_registered() -> None:
    heard: list[Any] = []

    @observations.on("a.topic")
    def fails(agent: Agent, body: dict[str, Any]) -> None:
        raise RuntimeError

    @observations.on("a.topic")
    def hears(agent: Agent, body: dict[str, Any]) -> None:
        heard.append((agent.pk, body))

    @observations.on("another.topic")
    def hears_other(agent: Agent, body: dict[str, Any]) -> None:
        heard.append("other")

    agent = AgentFactory()
    observations.dispatch(told(agent.pk))
    assert heard == [(agent.pk, {"what": 1})]


def test_strangers_and_unknown_topics_are_not_heard() -> None:
    heard: list[Any] = []
    observations.on("a.topic")(lambda agent, body: heard.append(agent))
    observations.dispatch(told(uuid4()))
    observations.dispatch(told(AgentFactory().pk, "no.topic"))
    assert heard == []


def test_what_was_seen_long_ago_is_not_heard(store: Any) -> None:
    heard: list[Any] = []
    observations.on("a.topic")(lambda agent, body: heard.append(body["age"]))
    agent, (seconds, _) = AgentFactory(), store.time()
    for age in (3600, 31, 20, 0):
        observations.dispatch(Observation(str(agent.pk), "a.topic", {"age": age}, float(seconds - age)).to_document())
    assert heard == [20, 0]
