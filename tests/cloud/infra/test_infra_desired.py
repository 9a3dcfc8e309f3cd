"""Desired sections: numbers that grow, sends that are coalesced, losses that are mended."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.common.wire import Failure, Held
from cloud.infra.models import Agent, DesiredSection
from cloud.infra.services import desired
from tests.cloud.infra.conftest import Sent
from tests.factories.infra import AgentFactory


@pytest.fixture
def agent(db: None, store: Any) -> Agent:
    made: Agent = AgentFactory()
    return made


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Who computes the sections; what it answers is the test's."""
    body: dict[str, Any] = {"bridges": ["a"]}
    monkeypatch.setattr(desired, "_providers", {"networks": lambda agent: dict(body), "dhcp": lambda agent: {}})
    return body


def held(agent: Agent, number: int, failure: Failure | None = None, section: str = "networks") -> dict[str, Any]:
    return Held(str(agent.pk), section, number, failure).to_document()


def test_each_touch_is_the_next_number(agent: Agent, sent: Sent) -> None:
    assert desired.touch(agent, "networks") == [(str(agent.pk), "networks", 1)]
    assert desired.touch(agent, "networks", "dhcp") == [(str(agent.pk), "dhcp", 1), (str(agent.pk), "networks", 2)]


def test_several_machines_at_once(agent: Agent, sent: Sent) -> None:
    other = AgentFactory()
    desired.touch(other, "dhcp")
    wanted = desired.touch_all([agent, other, agent], "dhcp")
    assert sorted(wanted) == sorted([(str(agent.pk), "dhcp", 1), (str(other.pk), "dhcp", 2)])
    assert desired.touch_all([], "dhcp") == []


def test_a_rolled_back_touch_never_was(agent: Agent, sent: Sent, on_commit: Callable[[], Any]) -> None:
    with on_commit():
        try:
            with transaction.atomic():
                desired.touch(agent, "networks")
                raise RuntimeError
        except RuntimeError:
            pass
    assert sent.tasks == []
    assert not DesiredSection.objects.exists()


def test_changes_close_together_go_out_once(agent: Agent, sent: Sent, on_commit: Callable[[], Any], store: Any) -> None:
    with on_commit():
        for _ in range(5):
            desired.touch(agent, "networks")
    assert sent.take() == [("infra.send_desired", {"agent": str(agent.pk), "section": "networks"})]
    assert 0 < store.pttl(f"mica:desired:{agent.pk}:networks") <= 200
    store.delete(f"mica:desired:{agent.pk}:networks")  # 200 ms later
    with on_commit():
        desired.touch(agent, "networks")
    assert len(sent.take()) == 1


def test_what_is_sent_is_computed_then(agent: Agent, sent: Sent, networks: dict[str, Any]) -> None:
    desired.touch(agent, "networks")
    desired.touch(agent, "networks")
    networks["bridges"] = ["a", "b"]
    desired.send(agent.pk, "networks")
    (message,) = sent.desired
    assert (message.agent, message.section, message.number) == (str(agent.pk), "networks", 2)
    assert message.body == {"bridges": ["a", "b"]}
    assert DesiredSection.objects.get().sent_at is not None


def test_what_is_held_is_not_sent_again(agent: Agent, sent: Sent, networks: dict[str, Any]) -> None:
    desired.touch(agent, "networks")
    desired.note(held(agent, 1))
    desired.send(agent.pk, "networks")
    assert sent.desired == []


def test_held_wakes_who_waits(agent: Agent, sent: Sent) -> None:
    [(_, _, number)] = desired.touch(agent, "networks")
    assert not desired.is_held(agent.pk, "networks", number)
    desired.note(held(agent, number))
    assert desired.is_held(agent.pk, "networks", number)
    assert sent.woken == [f"desired:{agent.pk}:networks"]


def test_a_late_word_does_not_go_back(agent: Agent, sent: Sent) -> None:
    desired.touch(agent, "networks")
    desired.touch(agent, "networks")
    desired.note(held(agent, 2))
    desired.note(held(agent, 1))
    assert desired.is_held(agent.pk, "networks", 2)
    desired.note(held(agent, 7))  # never wanted: nobody's word for it
    assert DesiredSection.objects.get().held == 2


def test_a_failure_fails_who_waits_for_that_number(agent: Agent, sent: Sent) -> None:
    desired.touch(agent, "networks")
    desired.note(held(agent, 1, Failure("rejected", "no_such_interface", "eth9 is not there")))
    with pytest.raises(Problem) as caught:
        desired.is_held(agent.pk, "networks", 1)
    assert caught.value.code == "no_such_interface"
    desired.touch(agent, "networks")
    assert not desired.is_held(agent.pk, "networks", 2)
    desired.note(held(agent, 2))
    assert desired.is_held(agent.pk, "networks", 2)
    assert DesiredSection.objects.get().failure is None


def test_a_passing_trouble_is_waited_out(agent: Agent, sent: Sent) -> None:
    desired.touch(agent, "networks")
    desired.note(held(agent, 1, Failure("transient", "busy", "later")))
    assert not desired.is_held(agent.pk, "networks", 1)


BROKEN = {"l2-a": {"nature": "rejected", "code": "no_eth9", "detail": "eth9 is not there"}}


def in_part(agent: Agent, number: int, at: float = 0.0, **failures: Failure) -> dict[str, Any]:
    return Held(str(agent.pk), "networks", number, None, failures, at).to_document()


class TestParts:
    def test_are_kept_while_they_fail(self, agent: Agent, sent: Sent) -> None:
        desired.touch(agent, "networks")
        desired.note(in_part(agent, 1, l2=Failure("rejected", "no_eth9", "eth9 is not there")))
        assert desired.is_held(agent.pk, "networks", 1)
        assert desired.failing([agent.pk], "networks") == {agent.pk: {"l2": BROKEN["l2-a"]}}
        assert desired.failing(None, "dhcp") == {}
        desired.note(in_part(agent, 1))
        assert desired.failing(None, "networks") == {}

    def test_later_words_count_though_they_come_first(self, agent: Agent, sent: Sent, store: Any) -> None:
        seconds, _ = store.time()
        desired.touch(agent, "networks")
        desired.note(in_part(agent, 1, at=seconds))
        desired.note(in_part(agent, 1, at=seconds - 2, l2=Failure("rejected", "no_eth9", "gone since")))
        assert desired.failing(None, "networks") == {}

    def test_hello_and_heartbeat_tell_them(self, agent: Agent, sent: Sent, store: Any) -> None:
        desired.touch(agent, "networks")
        desired.settle(agent, {"networks": 1}, {"networks": BROKEN}, is_hello=True)
        assert desired.failing(None, "networks") == {agent.pk: BROKEN}
        desired.settle(agent, {"networks": 1}, {}, is_hello=True)  # not looked at yet
        assert desired.failing(None, "networks") == {agent.pk: BROKEN}
        alive = '{"held": {"networks": 1}, "failures": {"networks": {}}}'
        store.set(f"mica:agent:{agent.pk}:alive", alive, ex=15)
        sent.woken.clear()
        desired.sweep()
        assert desired.failing(None, "networks") == {}
        assert sent.desired == []

    def test_a_new_number_is_judged_anew(self, agent: Agent, sent: Sent) -> None:
        desired.touch(agent, "networks")
        desired.settle(agent, {"networks": 1}, {"networks": BROKEN})
        desired.touch(agent, "networks")
        desired.settle(agent, {"networks": 2})
        assert desired.failing(None, "networks") == {}


def test_what_was_said_long_ago_is_not_heard(agent: Agent, sent: Sent, store: Any) -> None:
    seconds, _ = store.time()
    desired.touch(agent, "networks")
    desired.note(in_part(agent, 1, at=seconds - 31))
    assert not desired.is_held(agent.pk, "networks", 1)
    desired.note(in_part(agent, 1, at=seconds - 20))
    assert desired.is_held(agent.pk, "networks", 1)


def test_different_sections_of_several_machines_are_taken_at_once(agent: Agent, sent: Sent) -> None:
    other = AgentFactory()
    wanted = desired.touch_each([(other, "networks"), (agent, "networks"), (agent, "dhcp")])
    assert sorted(wanted) == sorted(
        [(str(agent.pk), "dhcp", 1), (str(agent.pk), "networks", 1), (str(other.pk), "networks", 1)]
    )
    assert DesiredSection.objects.count() == 3


def test_a_machine_that_is_gone_holds_everything(agent: Agent, sent: Sent, on_commit: Callable[[], Any]) -> None:
    desired.touch(agent, "networks")
    with on_commit():
        desired.forget(agent)
    assert desired.is_held(agent.pk, "networks", 1)
    assert f"desired:{agent.pk}:networks" in sent.woken


def test_hello_sends_what_the_machine_lacks(agent: Agent, sent: Sent, on_commit: Callable[[], Any]) -> None:
    for section in ("networks", "dhcp"):
        desired.touch(agent, section)
        desired.note(held(agent, 1, section=section))
    with on_commit():
        desired.settle(agent, {"dhcp": 1}, is_hello=True)  # a restarted machine lost its networks
    assert not desired.is_held(agent.pk, "networks", 1)
    assert [kwargs["section"] for _, kwargs in sent.take()] == ["networks"]


def test_a_heartbeat_never_takes_back(agent: Agent, sent: Sent) -> None:
    desired.touch(agent, "networks")
    desired.note(held(agent, 1))
    desired.settle(agent, {})
    assert desired.is_held(agent.pk, "networks", 1)


def test_numbers_of_another_life_are_overtaken(agent: Agent, sent: Sent, on_commit: Callable[[], Any]) -> None:
    """The database came back from a backup: the machine holds a number nobody remembers."""
    desired.touch(agent, "networks")
    with on_commit():
        desired.settle(agent, {"networks": 40}, is_hello=True)
    row = DesiredSection.objects.get()
    assert (row.wanted, row.held) == (41, 0)
    assert len(sent.take()) == 1


class TestSweep:
    def test_sends_again_what_is_behind(self, agent: Agent, sent: Sent, networks: dict[str, Any]) -> None:
        desired.touch(agent, "networks")
        desired.sweep()
        assert [message.number for message in sent.desired] == [1]
        desired.sweep()  # just sent
        assert len(sent.desired) == 1
        DesiredSection.objects.update(sent_at=None)
        desired.sweep()
        assert len(sent.desired) == 2

    def test_believes_the_heartbeat(self, agent: Agent, sent: Sent, networks: dict[str, Any], store: Any) -> None:
        desired.touch(agent, "networks")
        store.set(f"mica:agent:{agent.pk}:alive", '{"held": {"networks": 1}}', ex=15)
        desired.sweep()
        assert sent.desired == []
        assert desired.is_held(agent.pk, "networks", 1)

    def test_one_that_cannot_be_computed_does_not_stop_the_others(
        self, agent: Agent, sent: Sent, networks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(machine: Agent) -> dict[str, Any]:
            raise RuntimeError

        monkeypatch.setitem(desired._providers, "dhcp", fails)
        desired.touch(agent, "dhcp", "networks")
        desired.sweep()
        assert [message.section for message in sent.desired] == ["networks"]

    def test_leaves_silent_machines_alone(self, agent: Agent, sent: Sent, networks: dict[str, Any]) -> None:
        desired.touch(agent, "networks")
        Agent.objects.update(connection=Connection.DISCONNECTED, connection_changed_at=Now())
        desired.sweep()
        assert sent.desired == []


def test_one_provider_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired, "_providers", {})
    desired.provider("networks")(lambda agent: {})
    with pytest.raises(ValueError, match="computed twice"):
        desired.provider("networks")(held)


@pytest.mark.django_db(transaction=True)
def test_touches_of_many_callers_neither_block_nor_repeat(store: Any, sent: Sent) -> None:
    machines = [AgentFactory() for _ in range(3)]
    start, seen = threading.Barrier(4), []

    def change(turn: int) -> None:
        start.wait()
        for _ in range(5):
            with transaction.atomic():
                order = machines if turn % 2 else machines[::-1]
                seen.extend(desired.touch_all(order, "networks", "dhcp"))
        connection.close()

    threads = [threading.Thread(target=change, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 4 * 5 * 6
    assert set(DesiredSection.objects.values_list("wanted", flat=True)) == {20}
