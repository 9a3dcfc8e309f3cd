"""The link to agents: hello, silence, return. Ages of heartbeats are made by what is left of their time to live."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError

from cloud.common.models import Connection
from cloud.common.wire import Hello
from cloud.infra import signals
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Host, HostCapacity
from cloud.infra.services import connection, desired
from tests.cloud.infra.conftest import Sent
from tests.factories.infra import GIB, AgentFactory, HostFactory

FACTS = {
    "hostname": "one",
    "os_name": "Debian GNU/Linux 12 (bookworm)",
    "kernel": "6.1.0",
    "cpu_model": "A CPU",
    "cpu_threads": 8,
    "memory_bytes": 17 * GIB,
    "versions": {"qemu": "7.2.9", "libvirt": "9.0.0"},
    "is_kvm_usable": False,
}


class Heard:
    """What apps above would hear, in order: ("connected", agent, rebooted) or ("disconnected", agent)."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []

    def connected(self, agent: Agent, rebooted: bool, **_: Any) -> None:
        self.all.append(("connected", agent.pk, rebooted))

    def disconnected(self, agent: Agent, **_: Any) -> None:
        self.all.append(("disconnected", agent.pk))


@pytest.fixture
def heard() -> Iterator[Heard]:
    ears = Heard()
    signals.agent_connected.connect(ears.connected)
    signals.agent_disconnected.connect(ears.disconnected)
    yield ears
    signals.agent_connected.disconnect(ears.connected)
    signals.agent_disconnected.disconnect(ears.disconnected)


@pytest.fixture
def watch(
    db: None, store: Any, sent: Sent, on_commit: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """One look of the watch, at a Redis that has been up for as long as the test says."""

    def look(uptime_s: float = 3600, run: str = "run-1") -> None:
        monkeypatch.setattr(connection, "_server", lambda client: (uptime_s, run))
        with on_commit():
            connection.watch()

    return look


def beat(store: Any, agent: Agent, age_s: float = 0.0, **said: Any) -> None:
    """The heartbeat of an agent as it is `age_s` after it was made."""
    text = json.dumps({"boot_id": agent.boot_id, "held": {}, **said})
    store.set(f"mica:agent:{agent.pk}:alive", text, px=int(15000 - age_s * 1000))


def state(agent: Agent) -> str:
    return Agent.objects.get(pk=agent.pk).connection


def greet(agent: Agent, boot_id: str = "boot-1", facts: dict[str, Any] | None = None, **held: int) -> None:
    connection.hello(Hello(str(agent.pk), "0.1.0", boot_id, FACTS if facts is None else facts, held).to_document())


class TestWatch:
    def test_a_silent_agent_and_its_host_are_disconnected_once(
        self, watch: Callable[..., None], store: Any, heard: Heard
    ) -> None:
        host, other = HostFactory(), AgentFactory()
        beat(store, other)
        beat(store, host.agent, 11)
        watch()
        assert state(host.agent) == Connection.CONNECTED
        beat(store, host.agent, 12.5)
        watch()
        watch()
        assert state(host.agent) == Connection.DISCONNECTED
        host.refresh_from_db()
        assert (host.connection, host.connection_reason) == (Connection.DISCONNECTED, "agent_silent")
        assert state(other) == Connection.CONNECTED
        assert heard.all == [("disconnected", host.agent.pk)]

    def test_back_by_its_heartbeat(self, watch: Callable[..., None], store: Any, heard: Heard) -> None:
        host = HostFactory(connection=Connection.DISCONNECTED, agent__connection=Connection.DISCONNECTED)
        beat(store, host.agent, 7)  # the last one before it died
        watch()
        assert state(host.agent) == Connection.DISCONNECTED
        beat(store, host.agent)
        watch()
        host.refresh_from_db()
        assert state(host.agent) == host.connection == Connection.CONNECTED
        assert heard.all == [("connected", host.agent.pk, False)]

    def test_back_after_a_reboot_though_the_hello_is_lost(
        self, watch: Callable[..., None], store: Any, heard: Heard
    ) -> None:
        agent = AgentFactory(connection=Connection.DISCONNECTED)
        desired.touch(agent, "networks")
        beat(store, agent, boot_id="boot-2", held={})
        watch()
        assert heard.all == [("connected", agent.pk, True)]
        assert Agent.objects.get().boot_id == "boot-2"

    def test_a_reboot_that_nobody_missed_though_the_hello_is_lost(
        self, watch: Callable[..., None], store: Any, heard: Heard
    ) -> None:
        agent = AgentFactory()
        beat(store, agent, boot_id="boot-2")
        watch()
        watch()
        assert heard.all == [("connected", agent.pk, True)]

    def test_all_silent_at_once_for_less_than_a_minute(
        self, watch: Callable[..., None], store: Any, heard: Heard
    ) -> None:
        first, second = AgentFactory(), AgentFactory()
        beat(store, first, 8)
        beat(store, second, 9)
        watch()
        store.delete(*(f"mica:agent:{agent.pk}:alive" for agent in (first, second)))
        watch()
        assert heard.all == []
        store.set(connection.NEWEST_KEY, float(store.get(connection.NEWEST_KEY)) - 60)
        watch()
        assert {told[1] for told in heard.all} == {first.pk, second.pk}

    def test_nobody_in_the_first_minute_of_redis(self, watch: Callable[..., None], store: Any, heard: Heard) -> None:
        AgentFactory()
        watch(uptime_s=59)
        assert heard.all == []
        watch(uptime_s=61)
        assert len(heard.all) == 1

    def test_one_that_never_said_hello_is_nobodys_loss(
        self, watch: Callable[..., None], store: Any, heard: Heard
    ) -> None:
        agent = AgentFactory(connection=Connection.CONNECTING, hello_at=None)
        beat(store, agent)
        watch()
        assert (state(agent), heard.all) == (Connection.CONNECTING, [])

    def test_rows_change_only_when_something_changes(
        self, watch: Callable[..., None], store: Any, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(5):
            beat(store, AgentFactory())
        watch()
        with django_assert_max_num_queries(1):
            watch()

    def test_a_redis_without_its_users_gets_them_again(
        self, watch: Callable[..., None], store: Any, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = AgentFactory(redis_password_hash="a" * 64)
        AgentFactory(redis_password_hash="")
        beat(store, agent)
        watch(run="run-1")
        assert redis_acl.user_name(str(agent.pk)) in redis_acl.users(store)
        redis_acl.revoke(store, str(agent.pk))
        watch(run="run-1")
        assert redis_acl.user_name(str(agent.pk)) not in redis_acl.users(store)
        watch(run="run-2")
        assert redis_acl.user_name(str(agent.pk)) in redis_acl.users(store)
        monkeypatch.setattr(redis_acl, "COMMANDS", ["time"])  # a release that lets agents do less
        watch(run="run-2")
        rules = store.execute_command("ACL", "GETUSER", redis_acl.user_name(str(agent.pk)))
        assert "+ping" not in str(rules)
        assert Path(places["vmauth_file"]).exists()


class TestHello:
    @pytest.fixture(autouse=True)
    def _ready(self, db: None, store: Any) -> None:
        """Database and Redis."""

    def test_first_word(self, sent: Sent, heard: Heard, on_commit: Callable[[], Any]) -> None:
        agent = AgentFactory(connection=Connection.CONNECTING, boot_id="", hello_at=None)
        host = HostFactory(agent=agent, connection=Connection.CONNECTING, has_capacity=False)
        with on_commit():
            greet(agent)
        host = Host.objects.select_related("agent").get(pk=host.pk)
        assert host.connection == host.agent.connection == Connection.CONNECTED
        assert (host.hostname, host.cpu_threads, host.hypervisor_version) == ("one", 8, "7.2.9")
        assert host.is_kvm_usable is False
        assert (host.agent.version, host.agent.boot_id, host.agent.facts) == ("0.1.0", "boot-1", FACTS)
        assert host.agent.hello_at is not None
        room = HostCapacity.objects.get(host=host)
        assert (room.cpu_total, room.memory_total_bytes) == (8, 17 * GIB)
        assert heard.all == [("connected", agent.pk, False)]
        assert f"hello:{agent.pk}" in sent.woken

    def test_restarted_agent_and_restarted_machine(
        self, sent: Sent, heard: Heard, on_commit: Callable[[], Any]
    ) -> None:
        agent = AgentFactory()
        for boot_id in ("boot-1", "boot-2"):
            with on_commit():
                greet(agent, boot_id)
        assert heard.all == [("connected", agent.pk, False), ("connected", agent.pk, True)]

    def test_sends_what_is_behind(self, sent: Sent, on_commit: Callable[[], Any]) -> None:
        agent = AgentFactory()
        desired.touch(agent, "networks", "dhcp")
        with on_commit():
            greet(agent, dhcp=1)
        sections = {kwargs["section"] for name, kwargs in sent.tasks if name == "infra.send_desired"}
        assert sections - {"storages"} == {"networks"}  # what storages of its own want goes along
        assert desired.is_held(agent.pk, "dhcp", 1)

    def test_facts_that_are_missing_change_nothing(self, sent: Sent, on_commit: Callable[[], Any]) -> None:
        host = HostFactory(cpu_model="A CPU")
        with on_commit():
            greet(host.agent, facts={"hostname": "two"})
        host.refresh_from_db()
        assert (host.hostname, host.cpu_model, host.cpu_threads) == ("two", "A CPU", 4)

    def test_promises_survive_a_hello(self, sent: Sent, on_commit: Callable[[], Any]) -> None:
        host = HostFactory()
        HostCapacity.objects.update(cpu_used=3)
        with on_commit():
            greet(host.agent)
        assert HostCapacity.objects.get().cpu_used == 3

    def test_a_stranger_is_not_heard(self, sent: Sent, heard: Heard, on_commit: Callable[[], Any]) -> None:
        with on_commit():
            connection.hello(Hello(str(uuid4()), "0.1.0", "boot", {}).to_document())
        assert heard.all == []

    def test_one_that_comes_late_changes_nothing(
        self, sent: Sent, heard: Heard, on_commit: Callable[[], Any], store: Any
    ) -> None:
        agent, (seconds, _) = AgentFactory(), store.time()
        for age in (31, 20):
            said = Hello(str(agent.pk), "0.1.0", f"boot-{age}", {}, at=float(seconds - age))
            with on_commit():
                connection.hello(said.to_document())
        assert heard.all == [("connected", agent.pk, True)]
        assert Agent.objects.get().boot_id == "boot-20"

    def test_the_first_of_a_run_is_heard_even_late(
        self, sent: Sent, heard: Heard, on_commit: Callable[[], Any], store: Any
    ) -> None:
        agent, (seconds, _) = AgentFactory(), store.time()
        store.set(f"mica:agent:{agent.pk}:alive", '{"boot_id": "boot-2"}', ex=15)
        for boot in ("boot-1", "boot-2", "boot-2"):
            said = Hello(str(agent.pk), "0.1.0", boot, FACTS, at=float(seconds - 40))
            with on_commit():
                connection.hello(said.to_document())
        assert heard.all == [("connected", agent.pk, True)]
        assert Agent.objects.get().boot_id == "boot-2"

    def test_parts_that_fail_come_with_it(self, sent: Sent, on_commit: Callable[[], Any]) -> None:
        agent = AgentFactory()
        desired.touch(agent, "networks")
        parts = {"networks": {"l2": {"nature": "rejected", "code": "no_eth9", "detail": "eth9 is not there"}}}
        with on_commit():
            connection.hello(Hello(str(agent.pk), "0.1.0", "boot-1", {}, {"networks": 1}, parts).to_document())
        assert desired.failing(None, "networks") == {agent.pk: parts["networks"]}

    @pytest.mark.parametrize(("deadlocks", "heard_by"), [(2, 1), (99, 0)])
    def test_a_receiver_that_meets_a_deadlock_is_told_again(
        self, sent: Sent, heard: Heard, on_commit: Callable[[], Any], deadlocks: int, heard_by: int
    ) -> None:
        tries: list[bool] = []

        def meets_a_deadlock(agent: Agent, rebooted: bool, **_: Any) -> None:
            tries.append(len(tries) >= deadlocks)
            if not tries[-1]:
                raise OperationalError("deadlock detected")

        signals.agent_connected.connect(meets_a_deadlock)
        try:
            with on_commit():
                greet(AgentFactory())
        finally:
            signals.agent_connected.disconnect(meets_a_deadlock)
        assert tries.count(True) == heard_by
        assert len(tries) == min(deadlocks + 1, signals.TRIES)
        assert len(heard.all) == 1  # who had heard it is not told again

    def test_a_receiver_that_fails_does_not_stop_others(
        self, sent: Sent, heard: Heard, on_commit: Callable[[], Any]
    ) -> None:
        def fails(**_: Any) -> None:
            raise RuntimeError("a receiver of an app above")

        signals.agent_connected.connect(fails)
        try:
            with on_commit():
                greet(AgentFactory())
        finally:
            signals.agent_connected.disconnect(fails)
        assert len(heard.all) == 1
