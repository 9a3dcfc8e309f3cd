"""What stands on a piece of infrastructure keeps it from being deleted."""

from typing import Any

import pytest

from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.infra import usage
from cloud.infra.models import Zone
from cloud.infra.services import clusters, zones
from cloud.infra.usage import Use
from tests.factories.infra import ClusterFactory, ZoneFactory


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch, db: None) -> dict[str, int]:
    """An app above that hangs pictures into zones."""
    held = {"count": 2}
    monkeypatch.setattr(usage, "_questions", list(usage._questions))

    @usage.register
    def of_zone(resource: Any) -> list[Use]:
        return [Use("picture", held["count"], ("one", "two"))] if isinstance(resource, Zone) else []

    return held


def test_apps_above_have_a_say(pictures: dict[str, int], actor: Actor) -> None:
    zone = ZoneFactory()
    with pytest.raises(Conflict) as caught:
        zones.delete(zone, actor=actor)
    assert caught.value.extra["used_by"] == [{"kind": "picture", "count": 2, "names": ["one", "two"]}]
    pictures["count"] = 0
    zones.delete(zone, actor=actor)
    assert not Zone.objects.exists()


def test_from_the_inside_out(pictures: dict[str, int], actor: Actor) -> None:
    pictures["count"] = 0
    cluster = ClusterFactory()
    with pytest.raises(Conflict):
        zones.delete(cluster.zone, actor=actor)
    clusters.delete(cluster, actor=actor)
    zones.delete(cluster.zone, actor=actor)
