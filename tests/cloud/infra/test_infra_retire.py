"""An agent that leaves: its access and its unit are gone, and its service manager ends it."""

from pathlib import Path

import pytest

from cloud.agent.config import AgentConfig
from cloud.agent.registry import COMMANDS, Call, Machine
from cloud.infra.agent import handlers
from cloud.infra.messages import Retire
from tests.cloud.agent.waiting import wait_until


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    directory = tmp_path / "agent"
    directory.mkdir()
    (directory / "key.pem").write_text("key")
    for name in ("SUPERVISOR_TOOL", "SUPERVISOR_FILE", "SYSTEMD_FILE"):
        monkeypatch.setattr(handlers, name, tmp_path / name)
    return Machine("one", "host", AgentConfig("one", directory=directory), tmp_path)


def retire(machine: Machine) -> None:
    assert handlers.retire(Retire(), Call("key", "job", "resource", machine)) is None


def test_by_the_labs_supervisor(machine: Machine, tmp_path: Path) -> None:
    tool, told = tmp_path / "tool", tmp_path / "told"
    tool.write_text(f'#!/bin/sh\necho "$@" > {told}.new && mv {told}.new {told}\n')
    tool.chmod(0o755)
    (tmp_path / "SUPERVISOR_TOOL").write_text(f"{tool}\n")
    (tmp_path / "SUPERVISOR_FILE").write_text("[program:mica-agent]")
    retire(machine)
    wait_until(told.exists)
    assert told.read_text() == "update\n"
    assert not (tmp_path / "SUPERVISOR_FILE").exists()
    assert not machine.config.directory.exists()


def test_twice_or_without_anything(machine: Machine) -> None:
    retire(machine)
    retire(machine)
    assert not machine.config.directory.exists()


def test_it_is_a_command_every_agent_knows() -> None:
    assert COMMANDS["infra.retire"].message is Retire
