"""A network that fails on a host stops who needs it, and nobody else; hosts that hold it are passed over."""

from typing import Any

import pytest

from cloud.common.errors import Problem
from cloud.common.wire import Failure, Held
from cloud.infra.models import DesiredSection, Host
from cloud.infra.services import desired as sections
from network.models import L3Network, Nic
from network.services import nics, placement
from tests.network import factories as make

pytestmark = pytest.mark.django_db


class Scene:
    """A host with two networks of which one fails, and a NIC on each."""

    def __init__(self) -> None:
        cluster = make.cluster()
        self.host: Host = make.host(cluster)
        self.other: Host = make.host(cluster)
        networks = [
            make.no_vlan(cluster.zone, physical_interface=card, clusters=[cluster]) for card in ("eth1", "eth2")
        ]
        self.l3s: list[L3Network] = [make.l3(each) for each in networks]
        self.nics: list[Nic] = [make.nic(each) for each in self.l3s]
        self.wants = [want for nic in self.nics for want in nics.place([nic], self.host)]

    def say(self, section: str, failures: dict[str, Failure], failure: Failure | None = None) -> dict[str, Any]:
        """The host's word on the newest number of the section."""
        row = DesiredSection.objects.get(agent=self.host.agent_id, section=section)
        document = Held(str(self.host.agent_id), section, row.wanted, failure, failures).to_document()
        sections.note(document)
        return document


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(sections.engine, "wake", lambda topic: None)
    return Scene()


def refused(nature: str = "rejected") -> Failure:
    return Failure(nature, "dhcp_refused", "dnsmasq does not start")


@pytest.mark.parametrize(("section", "part"), [("dhcp", "pk"), ("networks", "l2_id")])
def test_only_who_needs_it_fails(scene: Scene, section: str, part: str) -> None:
    bad, good = scene.l3s
    for name in ("networks", "dhcp"):
        scene.say(name, {str(getattr(bad, part)): refused()} if name == section else {})
    assert all(sections.is_held(*want) for want in scene.wants)
    assert nics.are_served(scene.nics[1:])
    with pytest.raises(Problem) as caught:
        nics.are_served(scene.nics)
    assert caught.value.code == "dhcp_refused"
    assert "dnsmasq does not start" in str(caught.value.detail)
    assert str(bad) in str(caught.value.detail)
    assert "is failing: dnsmasq" in (placement.reason_against(scene.host, [good, bad]) or "")
    assert placement.reason_against(scene.host, [good]) is None
    assert placement.reason_against(scene.other, [bad]) is None


def test_what_may_pass_is_waited_for(scene: Scene) -> None:
    bad = scene.l3s[0]
    scene.say("dhcp", {str(bad.pk): refused("transient")})
    assert not nics.are_served(scene.nics)
    assert nics.are_served(scene.nics[1:])
    scene.say("dhcp", {})
    assert nics.are_served(scene.nics)
    assert placement.reason_against(scene.host, [bad]) is None


def test_agents_of_the_release_before_fail_as_a_whole(scene: Scene) -> None:
    """They do not know of parts: their word has no such key, and the host is passed over for all networks."""
    document = scene.say("networks", {}, refused())
    row = DesiredSection.objects.get(agent=scene.host.agent_id, section="networks")
    DesiredSection.objects.filter(pk=row.pk).update(failure=None)
    assert placement.reason_against(scene.host, scene.l3s) is None
    old = {name: document[name] for name in ("agent", "section", "number", "failure")}
    sections.note(old)
    assert "is failing" in (placement.reason_against(scene.host, scene.l3s[:1]) or "")
    sections.note({**old, "failure": None})
    assert sections.is_held(str(scene.host.agent_id), "networks", row.wanted)
    assert placement.reason_against(scene.host, scene.l3s) is None


def test_nics_that_are_nowhere_need_nothing(scene: Scene) -> None:
    scene.say("dhcp", {str(scene.l3s[0].pk): refused()})
    nics.unplace(scene.nics)
    assert nics.are_served(Nic.objects.all())
