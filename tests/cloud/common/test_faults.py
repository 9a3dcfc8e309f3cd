"""What is wrong with a simulated machine: said in words, done by its drivers."""

import pytest

from cloud.common.driver import Rejected, Transient
from cloud.common.faults import Fault, Faults
from compute.drivers.fake import FakeHypervisor
from compute.messages import DomainSpec
from network.drivers.fake import FakeNetwork
from network.messages import NetworksDesired
from storage.drivers.fake import FakeStorage, World

SPEC = DomainSpec("6f1e6a0e-8a1b-4a53-9d5d-1d1d4c2b7a10", "web", 1, 1 << 20)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], Fault()),
        (["slow=2s"], Fault(slow=2.0)),
        (["slow=250ms", "fail=0.1"], Fault(slow=0.25, fail=0.1)),
        (["fail=1", "nature=rejected"], Fault(fail=1.0, nature="rejected")),
        (["silent"], Fault(silent=True)),
        (["die"], Fault(die=10.0)),
        (["die=2m", "lose=0.5"], Fault(die=120.0, lose=0.5)),
    ],
)
def test_words(words, fault):
    assert Fault.of_words(words) == fault


@pytest.mark.parametrize(
    "word", ["", "slow", "slow=fast", "fail=2", "fail=-1", "fail=nan", "nature=odd", "explode", "silent=perhaps"]
)
def test_words_that_make_no_sense(word):
    with pytest.raises(ValueError, match=word or "''"):
        Fault.of_words([word])


def test_a_sound_machine_is_left_alone():
    slept = []
    Faults(sleep=slept.append).strike("anything")
    assert slept == []


def test_slow_takes_its_time_on_the_average():
    slept = []
    faults = Faults(Fault(slow=2.0), sleep=slept.append)
    for _ in range(2000):
        faults.strike("anything")
    assert 1.7 < sum(slept) / len(slept) < 2.3


def test_fails_as_often_as_declared_with_the_nature_declared():
    faults, failed = Faults(Fault(fail=0.25)), 0
    for _ in range(2000):
        try:
            faults.strike("anything")
        except Transient:
            failed += 1
    assert 380 < failed < 620
    with pytest.raises(Rejected, match="told to"):
        Faults(Fault(fail=1.0, nature="rejected")).strike("anything")


def test_answers_are_lost_as_often_as_declared():
    assert not any(Faults().loses() for _ in range(100))
    faults = Faults(Fault(lose=0.5))
    assert 380 < sum(faults.loses() for _ in range(1000)) < 620


def test_every_fake_driver_suffers():
    faults = Faults(Fault(fail=1.0))
    hypervisor = FakeHypervisor(faults=faults)
    for act in (
        lambda: hypervisor.start(SPEC),
        lambda: hypervisor.stop(SPEC.uuid),
        lambda: hypervisor.reboot(SPEC.uuid),
        lambda: hypervisor.remove(SPEC.uuid),
        lambda: FakeNetwork(faults=faults).converge_networks(NetworksDesired()),
        lambda: FakeStorage("/srv/x", {"/srv/x": World()}, faults).delete_volume(SPEC.uuid),
    ):
        with pytest.raises(Transient) as raised:
            act()
        assert raised.value.code == "simulated_fault"
    assert hypervisor.inventory() == ()
