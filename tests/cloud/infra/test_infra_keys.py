"""The key of a machine's certificate: what secrets in messages are sealed to, and how it comes to be known."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud.common import pki, sealing
from cloud.common.wire import SECRET, Command, Hello, Message
from cloud.infra.models import Agent
from cloud.infra.services import connection
from cloud.jobs import agents
from tests.factories.infra import AgentFactory

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Whisper(Message):
    kind: ClassVar[str] = "test.whisper"
    text: str = field(default="", repr=False, metadata=SECRET)


@pytest.fixture
def directory(tmp_path: Path, settings: Any) -> Path:
    pki.init(tmp_path / "pki")
    settings.MICA = {**settings.MICA, "pki": tmp_path / "pki"}
    return tmp_path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    kept: list[Any] = []
    monkeypatch.setattr(agents.app, "send_task", lambda _task, kwargs, **_: kept.append(kwargs["document"]))
    return kept


def enrolled(directory: Path) -> tuple[Agent, str]:
    """An agent enrolled before keys were kept, and its certificate."""
    agent: Agent = AgentFactory()
    request = pki.request(directory / f"{agent.pk}.pem", str(agent.pk))
    signed = pki.sign_request(directory / "pki", request, agent=str(agent.pk))
    Agent.objects.filter(pk=agent.pk).update(certificate_serial=signed.serial)
    return agent, signed.certificate


def greet(agent: Agent, certificate: str) -> Agent:
    connection.hello(Hello(str(agent.pk), "0.2.0", "boot", {"certificate": certificate}).to_document())
    return Agent.objects.get(pk=agent.pk)


def whisper(agent: Agent) -> None:
    body = Whisper("hidden").to_document()
    command = Command("j:0:run:1", "j", 1, "r", "0", "run", 1, Whisper.kind, body, 2e9)
    agents.send_command(agent.pk, command, is_bulk=False)


def test_an_agent_enrolled_earlier_shows_its_certificate(directory: Path, sent: list[Any]) -> None:
    agent, certificate = enrolled(directory)
    whisper(agent)
    assert sent[-1]["body"] == {"text": "hidden"}
    greeted = greet(agent, certificate)
    assert greeted.public_key == sealing.public_key_of(certificate)
    assert "certificate" not in greeted.facts
    whisper(agent)
    assert "hidden" not in json.dumps(sent[-1])
    opened = sealing.opened(sent[-1]["body"], str(agent.pk), directory / f"{agent.pk}.pem")
    assert opened == {"text": "hidden"}


def test_a_certificate_that_is_not_its_own_is_not_believed(directory: Path) -> None:
    agent, certificate = enrolled(directory)
    _other, foreign = enrolled(directory)
    assert greet(agent, foreign).public_key == ""
    assert greet(agent, "no certificate").public_key == ""
    Agent.objects.filter(pk=agent.pk).update(certificate_serial="00")  # replaced since
    assert greet(agent, certificate).public_key == ""
