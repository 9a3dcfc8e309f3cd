"""Upgrading agents from control: one, and all of them one after another."""

import json
from typing import Any

import pytest
from django.db import transaction

from cloud.common.actor import platform
from cloud.common.errors import Conflict, Problem, Unavailable
from cloud.common.models import Connection
from cloud.common.wire import Failure, Hello
from cloud.config import services as config
from cloud.infra import releases
from cloud.infra.models import Agent, Host
from cloud.infra.services import agents, connection, readiness
from cloud.infra.workflows import upgrade_agent
from cloud.jobs import circuit, engine
from cloud.jobs.models import Job, JobState
from tests.base.clients import Client
from tests.cloud.infra.enrolling import Line
from tests.factories.infra import AgentFactory, HostFactory

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = "0.1.0+old", "0.1.0+new"
ADMIN = platform("admin")


class Fleet:
    """Machines that take a release as they are told; their hello comes when `speak` is called."""

    def __init__(self, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        self.line, self.sent = line, list[str]()
        line.says_hello = False
        self.answers: dict[str, dict[str, str]] = {}
        self.goes_back: set[str] = set()
        release = releases.Release(NEW, b"release")
        monkeypatch.setattr(releases, "version", lambda: NEW)
        monkeypatch.setattr(releases, "current", lambda: release)
        monkeypatch.setattr(upgrade_agent, "_send", self._send)

    async def _send(self, agent: Agent, release: Any) -> dict[str, str]:
        self.sent.append(str(agent.pk))
        return self.answers.get(str(agent.pk), {"state": "installed"})

    def speak(self, agent: Agent) -> None:
        went_back = str(agent.pk) in self.goes_back
        facts = {"release_failure": {"version": NEW, "reason": "It ended 3 times."}} if went_back else {}
        hello = Hello(str(agent.pk), OLD if went_back else NEW, "boot-1", facts)
        connection.hello(hello.to_document())
        for job in Job.objects.live().values_list("pk", flat=True):
            self.line.kicks.append((job, "control"))
        self.line.run()


@pytest.fixture
def fleet(line: Line, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(line, monkeypatch)


def behind(**more: Any) -> Agent:
    agent: Agent = AgentFactory(version=OLD, **more)
    return agent


def ended(job: Job) -> tuple[str, str]:
    job.refresh_from_db()
    return job.state, (job.error or {}).get("code", "")


class TestOne:
    def test_it_waits_for_the_hello_and_confirms(self, fleet: Fleet, line: Line) -> None:
        agent = behind()
        job = agents.upgrade(agent, actor=ADMIN)
        line.run()
        assert ended(job) == ("running", "")
        asked: list[str] = []
        answer = engine.answer
        engine_answers = line.commands
        fleet.speak(agent)
        assert ended(job) == ("succeeded", "")
        assert (fleet.sent, engine_answers, asked) == ([str(agent.pk)], [], [])
        assert answer is engine.answer
        assert Agent.objects.get().version == NEW

    @pytest.mark.parametrize("code", ["release_damaged", "release_does_not_start"])
    def test_what_the_machine_refuses_fails_the_job(self, fleet: Fleet, line: Line, code: str) -> None:
        agent = behind()
        fleet.answers[str(agent.pk)] = {"state": "refused", "code": code, "detail": "because"}
        job = agents.upgrade(agent, actor=ADMIN)
        line.run()
        assert ended(job) == ("failed", code)

    def test_a_machine_that_went_back_says_why(self, fleet: Fleet, line: Line) -> None:
        agent = behind()
        fleet.goes_back.add(str(agent.pk))
        job = agents.upgrade(agent, actor=ADMIN)
        line.run()
        fleet.speak(agent)
        assert ended(job) == ("failed", "release_went_back")
        assert "ended 3 times" in job.error["detail"]["en"]  # type: ignore[index]

    def test_a_release_that_cannot_confirm_fails(self, fleet: Fleet, line: Line) -> None:
        agent = behind()
        line.failure = Failure("rejected", "release_went_back", "another runs")
        job = agents.upgrade(agent, actor=ADMIN)
        line.run()
        fleet.speak(agent)
        assert ended(job) == ("failed", "release_went_back")

    def test_one_that_never_comes_back_fails(self, fleet: Fleet, line: Line) -> None:
        agent = behind()
        job = agents.upgrade(agent, actor=ADMIN)
        line.run()
        Job.objects.update(step_deadline_at="2020-01-01T00:00:00Z")
        line.kicks.append((job.pk, "control"))
        line.run()
        assert ended(job) == ("failed", "timed_out")

    def test_a_door_that_does_not_open_fails(self, fleet: Fleet, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        async def unreachable(*_: Any) -> dict[str, str]:
            raise Unavailable("x", code="stream_unavailable")

        monkeypatch.setattr(upgrade_agent, "_send", unreachable)
        job = agents.upgrade(behind(), actor=ADMIN)
        line.run()
        assert ended(job) == ("failed", "stream_unavailable")

    def test_refused_when_away_or_current(self, fleet: Fleet) -> None:
        for agent, code in (
            (behind(connection=Connection.DISCONNECTED), "not_connected"),
            (AgentFactory(version=NEW), "already_current"),
            (AgentFactory(version="0.1.0+dev"), "already_current"),
        ):
            with pytest.raises(Conflict) as refused:
                agents.upgrade(agent, actor=ADMIN)
            assert refused.value.code == code


class TestAll:
    def test_one_after_another(self, fleet: Fleet, line: Line) -> None:
        machines = [behind(name=f"machine-{n}") for n in range(3)]
        behind(connection=Connection.DISCONNECTED)
        job = agents.upgrade_all(actor=ADMIN)
        line.run()
        for done, machine in enumerate(machines, start=1):
            assert fleet.sent == [str(each.pk) for each in machines[:done]]
            fleet.speak(machine)
        assert ended(job) == ("succeeded", "")
        assert Job.objects.filter(parent=job, state=JobState.SUCCEEDED).count() == 3

    def test_as_many_at_once_as_the_setting_says(self, fleet: Fleet, line: Line) -> None:
        config.change("agent.upgrades_at_once", value=2, actor=ADMIN)
        machines = [behind(name=f"machine-{n}") for n in range(3)]
        job = agents.upgrade_all(actor=ADMIN)
        line.run()
        assert fleet.sent == [str(each.pk) for each in machines[:2]]
        fleet.speak(machines[0])
        assert len(fleet.sent) == 3
        fleet.speak(machines[1])
        fleet.speak(machines[2])
        assert ended(job) == ("succeeded", "")

    def test_it_stops_at_the_first_that_does_not_come_back(self, fleet: Fleet, line: Line) -> None:
        machines = [behind(name=f"machine-{n}") for n in range(3)]
        fleet.goes_back.add(str(machines[1].pk))
        job = agents.upgrade_all(actor=ADMIN)
        line.run()
        fleet.speak(machines[0])
        fleet.speak(machines[1])
        assert ended(job) == ("failed", "upgrade_stopped")
        assert "machine-1" in job.error["detail"]["en"]  # type: ignore[index]
        assert fleet.sent == [str(each.pk) for each in machines[:2]]

    def test_one_that_is_busy_comes_later(self, fleet: Fleet, line: Line) -> None:
        busy, free = behind(name="a"), behind(name="b")
        held = agents.upgrade(busy, actor=ADMIN)
        job = agents.upgrade_all(actor=ADMIN)
        line.run()
        assert Job.objects.filter(parent=job).count() == 0  # it keeps the order
        fleet.speak(busy)
        assert ended(held) == ("succeeded", "")
        fleet.speak(free)
        assert ended(job) == ("succeeded", "")

    def test_only_one_such_job_and_none_without_need(self, fleet: Fleet, line: Line) -> None:
        behind()
        agents.upgrade_all(actor=ADMIN)
        with pytest.raises(Conflict) as refused:
            agents.upgrade_all(actor=ADMIN)
        assert refused.value.code == "busy"
        Agent.objects.update(version=NEW)
        with pytest.raises(Conflict) as refused:
            agents.upgrade_all(actor=ADMIN)
        assert refused.value.code == "already_current"


class TestSkew:
    """One release apart is worked with; more is told, and gets no new work."""

    @pytest.fixture(autouse=True)
    def _two_releases_on(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from cloud.agent import version
        from cloud.infra import models

        monkeypatch.setattr(version, "PROTOCOL", 3)
        monkeypatch.setattr(models, "PROTOCOL", 3)

    @pytest.mark.parametrize(("protocol", "is_taken"), [(1, False), (2, True), (3, True), (4, True), (5, False)])
    def test_by_the_number_of_its_hello(self, protocol: int, is_taken: bool) -> None:
        host = HostFactory()
        hello = Hello(str(host.agent_id), OLD, "boot-1", {}, protocol=protocol)
        connection.hello(hello.to_document())
        host = Host.objects.select_related("agent").get()
        assert host.connection == Connection.CONNECTED
        assert list(Host.objects.taking_work()) == ([host] if is_taken else [])
        assert (readiness.reasons_against()(host) is None) == is_taken
        if is_taken:
            readiness.expect_understood(host.agent_id)  # type: ignore[arg-type]
        else:
            with pytest.raises(Problem) as refused:
                readiness.expect_understood(host.agent_id)  # type: ignore[arg-type]
            assert refused.value.code == "agent_too_old"

    def test_a_job_says_so(self, line: Line, places: dict[str, Any]) -> None:
        from cloud.jobs import services as jobs

        agent = AgentFactory(protocol=1)

        class Ask(upgrade_agent.UpgradeAgent):
            name = "test.ask_too_old"
            steps = [upgrade_agent.Confirm]

        with transaction.atomic():
            job = jobs.open(Ask, resource=agent, actor=ADMIN, context={"agent": str(agent.pk), "version": NEW})
        line.run()
        assert ended(job) == ("failed", "agent_too_old")
        assert line.commands == []


class TestApi:
    def test_a_host_tells_of_its_agent(self, fleet: Fleet, admin: Client) -> None:
        host = HostFactory(agent__version=OLD, agent__clock_skew_s=-3.25)
        for _ in range(circuit.FAILURES):
            circuit.failed(host.agent_id, circuit.QUERY)
        shown = admin.get(f"/api/v1/hosts/{host.pk}/").json()
        assert (shown["agent_version"], shown["is_outdated"], shown["clock_skew_s"]) == (OLD, True, -3.25)
        assert [each["code"] for each in shown["warnings"]] == ["clock_skew", "agent_outdated", "circuit_open"]
        assert "3.2 s behind" in shown["warnings"][0]["detail"]
        assert shown["circuit"]["failures"] == 3
        listed = admin.get("/api/v1/hosts/").json()["results"][0]
        assert listed["circuit"]["until"] > listed["circuit"]["opened_at"]
        agent = admin.get(f"/api/v1/agents/{host.agent_id}/").json()
        assert (agent["version"], agent["is_outdated"], agent["protocol"]) == (OLD, True, 1)

    def test_a_clock_two_seconds_off_is_borne(self, fleet: Fleet, admin: Client) -> None:
        host = HostFactory(agent__version=NEW, agent__clock_skew_s=1.9)
        assert admin.get(f"/api/v1/hosts/{host.pk}/").json()["warnings"] == []

    def test_acts(self, fleet: Fleet, line: Line, admin: Client) -> None:
        host = HostFactory(agent__version=OLD)
        answer = admin.post(f"/api/v1/hosts/{host.pk}/upgrade-agent/")
        assert answer.status_code == 202
        job = Job.objects.get(workflow="agent.upgrade")
        assert answer.json()["job"].endswith(f"/{job.pk}/")
        line.run()
        fleet.speak(host.agent)
        assert ended(job) == ("succeeded", "")
        refused = admin.post("/api/v1/agents/upgrade-all/")
        assert (refused.status_code, refused.json()["code"]) == (409, "already_current")
        Agent.objects.update(version=OLD)
        assert admin.post("/api/v1/agents/upgrade-all/").status_code == 202
        assert json.loads(admin.post(f"/api/v1/agents/{host.agent_id}/upgrade/").content)["job"]


class TestHeartbeat:
    def test_what_it_tells_anew_is_noted(self, store: Any) -> None:
        agent = AgentFactory(version=OLD, clock_skew_s=0.0)
        key = f"mica:agent:{agent.pk}:alive"
        for told, noted in ((0.5, 0.0), (1.5, 1.5), (1.9, 1.5), (-4.0, -4.0)):
            store.set(key, json.dumps({"boot_id": "boot-1", "version": NEW, "clock_skew_s": told}), ex=15)
            connection.watch()
            agent.refresh_from_db()
            assert (agent.clock_skew_s, agent.version) == (noted, NEW)
