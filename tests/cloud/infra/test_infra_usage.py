"""What stands on a piece of infrastructure keeps it from being deleted."""

import pytest

from cloud.common import relations
from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.infra.models import Agent, Zone
from cloud.infra.services import clusters, zones
from tests.factories.infra import AgentFactory, ClusterFactory, ZoneFactory


def test_from_the_inside_out(actor: Actor, db: None) -> None:
    cluster = ClusterFactory(name="rack")
    with pytest.raises(Conflict) as caught:
        zones.delete(cluster.zone, actor=actor)
    assert caught.value.extra["used_by"] == [{"kind": "cluster", "count": 1, "names": ["rack"]}]
    clusters.delete(cluster, actor=actor)
    zones.delete(cluster.zone, actor=actor)
    assert not Zone.objects.exists()


def test_apps_above_have_a_say(monkeypatch: pytest.MonkeyPatch, actor: Actor, db: None) -> None:
    monkeypatch.setattr(relations, "_relations", list(relations._relations))
    relations.declare(Zone, Agent, by="uuid", effect=relations.BLOCKS)  # an agent of the zone's own uuid
    zone = ZoneFactory()
    agent = AgentFactory(uuid=zone.pk, name="one")
    with pytest.raises(Conflict) as caught:
        zones.delete(zone, actor=actor)
    assert caught.value.extra["used_by"] == [{"kind": "agent", "count": 1, "names": ["one"]}]
    agent.delete()
    zones.delete(zone, actor=actor)
    assert not Zone.objects.exists()
