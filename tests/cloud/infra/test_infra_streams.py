"""Control's side of the stream door, with the agent's own door at the other end."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.agent import registry
from cloud.agent.door import Door
from cloud.agent.journal import Journal
from cloud.agent.registry import Machine
from cloud.common.driver import Rejected
from cloud.common.errors import Problem, Unavailable
from cloud.infra import streams
from cloud.infra.models import Agent
from tests.cloud.agent.conftest import enrol
from tests.cloud.agent.waiting import free_port


async def echo(ticket: Any, reader: Any, writer: Any, machine: Machine) -> None:
    if ticket.params.get("refuse"):
        raise Rejected("no_such_console", "There is no such console.")
    writer.write(f"{ticket.resource}:".encode())
    writer.write(await reader.readline())
    await writer.drain()


@pytest.fixture
def door(places: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A running stream door; the agent's row and its port."""
    monkeypatch.setitem(registry.STREAMS, "test.echo", echo)
    agent, port = str(uuid.uuid4()), free_port()
    config = enrol(places["pki"], tmp_path / "agent", agent, stream_port=port)
    machine = Machine(agent, "host", config, tmp_path)
    journal = Journal(tmp_path / "journal.sqlite3", agent)
    opened = Door(machine, journal, __import__("time").time)
    opened.start()
    yield Agent(uuid=uuid.UUID(agent), name="one", address="127.0.0.1"), port
    opened.stop()
    journal.close()


def run(steps: AsyncIterator[Any] | Any) -> Any:
    return asyncio.run(steps)


def test_bytes_go_both_ways(door: Any) -> None:
    agent, port = door

    async def talk() -> bytes:
        reader, writer = await streams.open(agent, "test.echo", "a-resource", {}, port=port)
        writer.write(b"hello\n")
        answer: bytes = await reader.read()
        writer.close()
        return answer

    for _ in range(2):
        assert run(talk()) == b"a-resource:hello\n"


def test_refused_with_the_doors_code(door: Any) -> None:
    agent, port = door
    for verb, params, code in (
        ("test.echo", {"refuse": True}, "no_such_console"),
        ("no.such_verb", {}, None),
    ):
        with pytest.raises(Problem) as caught:
            run(streams.open(agent, verb, "a-resource", params, port=port))
        assert not isinstance(caught.value, Unavailable)
        assert caught.value.code == code or code is None


def test_another_machine_at_that_address(door: Any) -> None:
    _agent, port = door
    stranger = Agent(uuid=uuid.uuid4(), name="two", address="127.0.0.1")
    with pytest.raises(Unavailable) as caught:
        run(streams.open(stranger, "test.echo", "a-resource", port=port))
    assert caught.value.code == "stream_unavailable"


def test_nobody_there(places: dict[str, Any]) -> None:
    agent = Agent(uuid=uuid.uuid4(), name="one", address="127.0.0.1")
    with pytest.raises(Unavailable):
        run(streams.open(agent, "test.echo", "a-resource", port=free_port()))
