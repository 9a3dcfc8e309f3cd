"""Whether a machine goes down, as its service manager tells."""

import pytest

from cloud.agent import going_down
from cloud.agent.going_down import GoingDown

RUNNING = "libvirtd RUNNING pid 1, uptime 0:01\nmica-agent RUNNING pid 2, uptime 0:01\n"
STOPPING = "libvirtd STOPPING\nmica-agent STOPPING\nsshd STOPPED Nov 23\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(going_down, "REMEMBER_S", 0.0)

    class Machine:
        says, asked = "", []

        def ask(self):
            return GoingDown(lambda argv: (self.asked.append(argv), self.says)[1], tmp_path / "sd", tmp_path / "sv")

        def has(self, name, content=""):
            (tmp_path / name).write_text(content)
            return self

    return Machine()


@pytest.mark.parametrize(
    ("says", "is_down"), [("running", False), ("degraded", False), ("stopping", True), ("", False)]
)
def test_by_systemd(machine, says, is_down):
    machine.has("sd").says = says
    assert machine.ask()() is is_down
    assert machine.asked[-1] == ["systemctl", "is-system-running"]


def test_systemd_never_takes_it_back(machine):
    machine.has("sd").says = "stopping"
    question = machine.ask()
    assert question()
    machine.says = ""  # its bus is gone by now
    assert question()


@pytest.mark.parametrize(("says", "is_down"), [(RUNNING, False), (STOPPING, True), ("", False)])
def test_by_a_supervisor(machine, says, is_down):
    machine.has("sv", "/usr/bin/tool\n").says = says
    assert machine.ask()() is is_down
    assert machine.asked[-1] == ["/usr/bin/tool", "status"]


def test_without_either_nobody_says_so(machine):
    assert machine.ask()() is False
    assert machine.asked == []


def test_it_is_asked_once_a_second_at_most(machine, monkeypatch):
    monkeypatch.setattr(going_down, "REMEMBER_S", 60.0)
    question = machine.has("sd").ask()
    before = len(machine.asked)
    for _ in range(5):
        question()
    assert len(machine.asked) == before + 1
