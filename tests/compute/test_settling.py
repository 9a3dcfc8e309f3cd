"""Settling an instance asks its host what is there."""

from typing import Any

import pytest

from cloud.common.errors import Unavailable
from cloud.infra.models import HostCapacity
from cloud.jobs import agents
from compute.models import Instance
from tests.base.clients import Client
from tests.factories.compute import InstanceFactory
from tests.factories.infra import HostFactory


def said(monkeypatch: pytest.MonkeyPatch, *domains: dict[str, Any]) -> None:
    monkeypatch.setattr(agents, "ask", lambda agent, message, timeout=5.0: {"domains": list(domains), "cause": ""})


def settled(admin: Client, instance: Instance) -> Instance:
    response = admin.post(f"/api/v1/instances/{instance.pk}/settle-state/", {})
    assert response.status_code == 200, response.content
    instance.refresh_from_db()
    assert instance.activity == ""
    return instance


@pytest.fixture
def lost(db: None) -> Instance:
    """A job that is no more was at work on it; its room is booked."""
    host = HostFactory()
    HostCapacity.objects.filter(host=host).update(cpu_used=1, memory_used_bytes=1024**3)
    made: Instance = InstanceFactory.running(place=host, activity="stopping")
    Instance.objects.filter(pk=made.pk).update(settled_at="2020-01-01T00:00Z")
    return made


def test_what_is_not_there_is_off(admin: Client, lost: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch)
    instance = settled(admin, lost)
    assert (instance.state, instance.host, instance.is_reserved) == ("stopped", None, False)
    assert HostCapacity.objects.get().cpu_used == 0


def test_what_runs_goes_on(admin: Client, lost: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    Instance.objects.update(state="unknown")
    said(monkeypatch, {"uuid": str(lost.pk), "name": "x", "state": "running", "is_ours": True})
    instance = settled(admin, lost)
    assert (instance.state, instance.is_reserved) == ("running", True)
    assert HostCapacity.objects.get().cpu_used == 1


def test_what_nobody_knows_is_kept(admin: Client, lost: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(agent: Any, message: Any, timeout: float = 5.0) -> Any:
        raise Unavailable("silence")

    monkeypatch.setattr(agents, "ask", silent)
    instance = settled(admin, lost)
    assert (instance.state, instance.is_reserved) == ("unknown", True)
    assert "does not answer" in instance.state_reason
    assert HostCapacity.objects.get().cpu_used == 1


def test_the_bin_keeps_what_is_in_it(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = InstanceFactory(state="destroyed", activity="expunging")
    assert settled(admin, instance).state == "destroyed"
