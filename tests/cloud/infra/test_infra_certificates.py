"""Certificates of agents on the side of control: signed anew when asked for, and revoked for every machine."""

from typing import Any

import pytest
from django.db.models.functions import Now

from cloud.common import pki
from cloud.common.actor import platform
from cloud.common.models import Connection
from cloud.common.wire import Hello, Observation
from cloud.infra import certificates as signing
from cloud.infra import observations
from cloud.infra.drivers import redis_acl
from cloud.infra.messages import CERTIFICATE_TOPIC, CertificateWanted
from cloud.infra.models import Agent, Certificate, DesiredSection
from cloud.infra.services import agents, certificates, connection, hosts
from cloud.jobs.models import Job
from tests.base.clients import Client
from tests.cloud.infra.enrolling import Line
from tests.factories.infra import AgentFactory, HostFactory

pytestmark = pytest.mark.django_db(transaction=True)
ADMIN = platform("admin")


@pytest.fixture(autouse=True)
def _ready(line: Line, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "resolve", lambda address, port, may_loop: address)


@pytest.fixture
def agent(tmp_path: Any) -> Agent:
    made: Agent = AgentFactory(address="10.9.0.7", redis_password_hash="a" * 64)
    signing.note(made, signing.sign(made, pki.request(tmp_path / "key.pem", str(made.pk))))
    return made


def ask(agent: Agent, request: str, serial: str) -> Agent:
    body = CertificateWanted(request, serial).to_document()
    observations.dispatch(Observation(str(agent.pk), CERTIFICATE_TOPIC, body, 0.0).to_document())
    agent.refresh_from_db()
    return agent


def test_a_new_one_comes_as_its_section(agent: Agent, tmp_path: Any) -> None:
    old, request = agent.certificate_serial, pki.request(tmp_path / "key.pem", str(agent.pk))
    renewed = ask(agent, request, old)
    assert renewed.certificate_serial != old
    assert certificates.certificate_of(renewed) == {"certificate": renewed.certificate}
    assert pki.is_certificate_of(renewed.certificate, request)
    row = DesiredSection.objects.get(agent=agent, section="certificate")
    assert (row.wanted, row.held) == (1, 0)
    # Asked again before it has it, it is given the same; asked with that one, the next.
    assert ask(agent, request, old).certificate_serial == renewed.certificate_serial
    serial = renewed.certificate_serial
    assert ask(agent, request, serial).certificate_serial != serial
    assert Certificate.objects.filter(agent_uuid=agent.pk, revoked_at=None).count() == 3


def test_nobody_gets_one_for_another(agent: Agent, tmp_path: Any) -> None:
    old = agent.certificate_serial
    for request in (pki.request(tmp_path / "other.pem", str(AgentFactory().pk)), "no request", ""):
        assert ask(agent, request, old).certificate_serial == old
    Agent.objects.update(redis_password_hash="")
    assert ask(agent, pki.request(tmp_path / "key.pem", str(agent.pk)), old).certificate_serial == old


class TestRevoked:
    def test_every_machine_is_told(self, agent: Agent, line: Line, store: Any, tmp_path: Any) -> None:
        other = AgentFactory()
        host = HostFactory(agent=agent)
        redis_acl.grant(store, str(agent.pk), "a" * 64)
        first = agent.certificate_serial
        second = ask(agent, pki.request(tmp_path / "key.pem", str(agent.pk)), first).certificate_serial
        job = agents.revoke(agent, actor=ADMIN)
        line.run()
        job.refresh_from_db()
        assert job.state == "succeeded"
        assert certificates.revoked(other) == {"serials": sorted([first, second])}
        sections = DesiredSection.objects.filter(section="revoked", wanted=1).values_list("agent_id", flat=True)
        assert {other.pk, agent.pk} <= set(sections)
        assert redis_acl.user_name(str(agent.pk)) not in redis_acl.users(store)
        agent.refresh_from_db()
        host.refresh_from_db()
        assert (agent.redis_password_hash, agent.metrics_token_sealed) == ("", "")
        assert (host.connection, host.connection_reason) == (Connection.DISCONNECTED, "agent_revoked")
        certificates.tell_revoked()  # said once
        assert set(DesiredSection.objects.filter(section="revoked").values_list("wanted", flat=True)) == {1}

    def test_a_word_that_was_lost_is_said_by_the_clock(self, agent: Agent) -> None:
        Certificate.objects.update(revoked_at=Now())
        certificates.look_after()
        assert DesiredSection.objects.get(agent=agent, section="revoked").wanted == 1

    def test_with_its_host(self, agent: Agent, line: Line, store: Any) -> None:
        host, other = HostFactory(agent=agent), AgentFactory()
        hosts.delete(host, actor=ADMIN)
        line.run()
        assert not Agent.objects.filter(pk=agent.pk).exists()
        assert certificates.revoked(other) == {"serials": [agent.certificate_serial]}

    def test_a_newcomer_is_told_at_its_first_word(self, agent: Agent) -> None:
        newcomer = AgentFactory(enrolled_at=None, hello_at=None)
        connection.hello(Hello(str(newcomer.pk), "0.1.0", "boot-1", {}).to_document())
        assert not DesiredSection.objects.filter(section="revoked").exists()
        signing.revoke(agent)
        connection.hello(Hello(str(newcomer.pk), "0.1.0", "boot-1", {}).to_document())
        assert DesiredSection.objects.filter(agent=newcomer, section="revoked").exists()

    def test_what_is_past_its_end_is_forgotten(self, agent: Agent) -> None:
        Certificate.objects.update(revoked_at=Now(), expires_at="2020-01-01T00:00:00Z")
        assert certificates.revoked(agent) == {"serials": []}
        certificates.look_after()
        assert not Certificate.objects.exists()

    def test_by_the_api(self, agent: Agent, line: Line, admin: Client) -> None:
        answer = admin.post(f"/api/v1/agents/{agent.pk}/revoke/")
        assert answer.status_code == 202
        line.run()
        assert Job.objects.get(workflow="agent.revoke").state == "succeeded"
        shown = admin.get(f"/api/v1/agents/{agent.pk}/").json()
        assert (shown["connection"], shown["certificate_serial"]) == ("disconnected", agent.certificate_serial)
