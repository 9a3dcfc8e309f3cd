"""The contract of a hypervisor, one suite for every driver."""

import uuid as uuids

import pytest

from cloud.common.driver import Aborted, NotFound, Rejected
from tests.contract.worlds import World

HOSTILE_NAMES = ["<&>\"'", "网站 1", "a/b\\c", "x" * 300, " ", "]]>", "a\nb", "\x00\x1b[0m", "${jndi}"]


def test_start_runs_the_domain_and_tells_it(world: World) -> None:
    spec = world.spec("web-1")
    assert world.hypervisor.start(spec) == "running"
    assert world.hypervisor.state(spec.uuid) == "running"
    assert world.eventually(lambda: ("running", "booted") in world.heard(spec.uuid))
    assert {event.name for event in world.events if event.uuid == spec.uuid} == {"web-1"}
    assert all(event.is_ours for event in world.events if event.uuid == spec.uuid)


def test_start_of_a_running_domain_changes_nothing(world: World) -> None:
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.eventually(lambda: ("running", "booted") in world.heard(spec.uuid))
    assert world.hypervisor.start(spec) == "running"
    world.hypervisor.stop(spec.uuid, is_forced=True)
    assert world.eventually(lambda: ("stopped", "destroyed") in world.heard(spec.uuid))
    assert world.heard(spec.uuid).count(("running", "booted")) == 1


def test_forced_stop(world: World) -> None:
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.hypervisor.stop(spec.uuid, is_forced=True) == "stopped"
    assert world.hypervisor.state(spec.uuid) == "stopped"
    assert world.eventually(lambda: world.heard(spec.uuid)[-1:] == [("stopped", "destroyed")])


def test_stop_is_done_when_there_is_nothing_to_stop(world: World) -> None:
    spec = world.spec()
    assert world.hypervisor.stop(spec.uuid) == "stopped"
    world.hypervisor.start(spec)
    world.hypervisor.stop(spec.uuid, is_forced=True)
    assert world.hypervisor.stop(spec.uuid) == "stopped"
    assert world.hypervisor.stop(spec.uuid, is_forced=True) == "stopped"


def test_a_stopped_domain_starts_again_as_it_is_asked_for_now(world: World) -> None:
    spec = world.spec("old name")
    world.hypervisor.start(spec)
    world.hypervisor.stop(spec.uuid, is_forced=True)
    changed = world.spec("new name", uuid=spec.uuid, cpu=2)
    assert world.hypervisor.start(changed) == "running"
    assert [d.name for d in world.hypervisor.inventory() if d.uuid == spec.uuid] == ["new name"]


def test_a_guest_that_does_not_obey_is_forced_after_the_grace(world: World) -> None:
    world.ignore_power_button()
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.hypervisor.stop(spec.uuid, grace_s=0.5) == "stopped"
    assert world.eventually(lambda: world.heard(spec.uuid)[-1:] == [("stopped", "destroyed")])


def test_a_stop_that_is_cancelled_leaves_the_domain_running(world: World) -> None:
    world.ignore_power_button()
    spec = world.spec()
    world.hypervisor.start(spec)

    def cancelled() -> None:
        raise Aborted

    with pytest.raises(Aborted):
        world.hypervisor.stop(spec.uuid, grace_s=30, watch=cancelled)
    assert world.hypervisor.state(spec.uuid) == "running"


def test_forced_reboot_keeps_it_running(world: World) -> None:
    if not world.can_restart:
        pytest.skip("cannot restart")
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.hypervisor.reboot(spec.uuid, is_forced=True) == "running"
    assert world.hypervisor.state(spec.uuid) == "running"


def test_reboot_by_force_after_the_grace(world: World) -> None:
    if not world.can_restart:
        pytest.skip("cannot restart")
    world.ignore_power_button()
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.hypervisor.reboot(spec.uuid, grace_s=0.5) == "running"


def test_reboot_of_what_does_not_run(world: World) -> None:
    spec = world.spec()
    with pytest.raises(NotFound, match=spec.uuid) as missing:
        world.hypervisor.reboot(spec.uuid)
    assert missing.value.code == "domain_not_found"
    world.hypervisor.start(spec)
    world.hypervisor.stop(spec.uuid, is_forced=True)
    with pytest.raises(Rejected) as stopped:
        world.hypervisor.reboot(spec.uuid)
    assert stopped.value.code == "domain_not_running"


def test_remove_forgets_the_domain(world: World) -> None:
    spec = world.spec()
    world.hypervisor.start(spec)
    world.hypervisor.remove(spec.uuid)
    assert spec.uuid not in {domain.uuid for domain in world.hypervisor.inventory()}
    with pytest.raises(NotFound):
        world.hypervisor.state(spec.uuid)
    assert world.eventually(lambda: world.heard(spec.uuid)[-1:] == [("stopped", "undefined")])
    assert all(event.is_ours for event in world.events if event.uuid == spec.uuid)
    world.hypervisor.remove(spec.uuid)


def test_a_domain_that_is_not_there(world: World) -> None:
    uuid = str(uuids.uuid4())
    for ask in (world.hypervisor.state, world.hypervisor.guest_info):
        with pytest.raises(NotFound) as missing:
            ask(uuid)
        assert missing.value.code == "domain_not_found"


def test_inventory_lists_all_and_says_which_are_ours(world: World) -> None:
    running, stopped = world.spec("runs"), world.spec("rests")
    for spec in (running, stopped):
        world.hypervisor.start(spec)
    world.hypervisor.stop(stopped.uuid, is_forced=True)
    foreign = world.add_foreign("somebody-elses")
    found = {d.uuid: (d.name, d.state, d.is_ours) for d in world.hypervisor.inventory()}
    assert found[running.uuid] == ("runs", "running", True)
    assert found[stopped.uuid] == ("rests", "stopped", True)
    assert found[foreign] == ("somebody-elses", "running", False)


def test_a_foreign_domain_is_never_touched(world: World) -> None:
    foreign = world.add_foreign("somebody-elses")
    acts = [
        lambda: world.hypervisor.start(world.spec(uuid=foreign)),
        lambda: world.hypervisor.stop(foreign, is_forced=True),
        lambda: world.hypervisor.reboot(foreign, is_forced=True),
        lambda: world.hypervisor.remove(foreign),
    ]
    for act in acts:
        with pytest.raises(Rejected) as refused:
            act()
        assert refused.value.code == "domain_not_ours"
    assert world.hypervisor.state(foreign) == "running"
    assert foreign not in {domain.uuid for domain in world.hypervisor.stats()}
    assert world.eventually(lambda: bool(world.heard(foreign)))
    assert not any(event.is_ours for event in world.events if event.uuid == foreign)


def test_a_domain_that_dies_is_told_at_once(world: World) -> None:
    if not world.can_crash:
        pytest.skip("nothing dies here")
    spec = world.spec()
    world.hypervisor.start(spec)
    world.crash(spec.uuid)
    assert world.eventually(lambda: world.heard(spec.uuid)[-1:] == [("stopped", "failed")], 5)
    assert world.hypervisor.state(spec.uuid) == "stopped"
    assert world.hypervisor.start(spec) == "running"


def test_a_lost_connection_comes_back(world: World) -> None:
    if not world.can_lose_its_connection:
        pytest.skip("there is no connection to lose")
    spec = world.spec()
    world.hypervisor.start(spec)
    world.lose_connection()
    assert world.eventually(lambda: world.connects == 2)
    assert world.hypervisor.state(spec.uuid) == "running"
    world.hypervisor.stop(spec.uuid, is_forced=True)
    assert world.eventually(lambda: ("stopped", "destroyed") in world.heard(spec.uuid))


def test_functions_run_in_order_with_events(world: World) -> None:
    spec = world.spec()
    world.hypervisor.start(spec)
    assert world.eventually(lambda: bool(world.heard(spec.uuid)))
    ran: list[int] = []
    for number in range(3):
        world.hypervisor.in_order(lambda number=number: ran.append(number))  # type: ignore[misc]
    assert world.eventually(lambda: len(ran) == 3)
    assert ran == [0, 1, 2]


def test_stats_of_running_domains_only(world: World) -> None:
    running, stopped = world.spec(project="p-1", cpu=2), world.spec()
    for spec in (running, stopped):
        world.hypervisor.start(spec)
    world.hypervisor.stop(stopped.uuid, is_forced=True)
    found = {domain.uuid: domain for domain in world.hypervisor.stats()}
    assert set(found) == {running.uuid}
    stats = found[running.uuid]
    assert stats.project == "p-1"
    if world.hypervisor.capabilities.has_block_stats:
        assert stats.cpu_count == 2
        assert set(stats.vcpu_seconds) == {0, 1}
        assert stats.cpu_seconds is not None
        assert stats.memory_total_bytes == running.memory_bytes


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_will_do(world: World, name: str) -> None:
    spec = world.spec(name)
    assert world.hypervisor.start(spec) == "running"
    assert [d.state for d in world.hypervisor.inventory() if d.uuid == spec.uuid] == ["running"]


def test_what_cannot_be_is_refused_and_leaves_nothing(world: World) -> None:
    spec = world.spec(cpu=0)
    with pytest.raises(Rejected):
        world.hypervisor.start(spec)
    with pytest.raises(NotFound):
        world.hypervisor.state(spec.uuid)


def test_facts_name_the_hypervisor(world: World) -> None:
    facts = world.hypervisor.facts()
    assert facts["hypervisor"] in ("fake", "libvirt")
    assert "hypervisor_error" not in facts


def test_close_is_idempotent(world: World) -> None:
    world.hypervisor.close()
    world.hypervisor.close()


def test_a_domain_set_aside_comes_back_switched_off(world: World) -> None:
    spec, id = world.spec("web <1>"), str(uuids.uuid4())
    world.hypervisor.start(spec)
    for _time in range(2):
        world.hypervisor.set_aside(id, spec.uuid)
    assert spec.uuid not in {domain.uuid for domain in world.hypervisor.inventory()}
    (kept,) = world.hypervisor.aside()
    assert (kept.id, kept.uuid, kept.name) == (id, spec.uuid, "web <1>")
    world.hypervisor.put_back(id)
    assert world.hypervisor.aside() == ()
    (back,) = [domain for domain in world.hypervisor.inventory() if domain.uuid == spec.uuid]
    assert (back.name, back.state, back.is_ours) == ("web <1>", "stopped", True)
    assert world.hypervisor.start(spec) == "running"
    with pytest.raises(NotFound):
        world.hypervisor.put_back(id)


def test_the_quarantine_of_domains_is_purged(world: World) -> None:
    spec, id = world.spec(), str(uuids.uuid4())
    world.hypervisor.start(spec)
    world.hypervisor.set_aside(id, spec.uuid)
    for _time in range(2):
        world.hypervisor.purge(id)
    assert world.hypervisor.aside() == ()


def test_a_foreign_domain_is_never_set_aside(world: World) -> None:
    foreign = world.add_foreign("stranger")
    with pytest.raises(Rejected) as refused:
        world.hypervisor.set_aside(str(uuids.uuid4()), foreign)
    assert refused.value.code == "domain_not_ours"
    assert world.hypervisor.state(foreign) == "running"
    with pytest.raises(NotFound):
        world.hypervisor.set_aside(str(uuids.uuid4()), str(uuids.uuid4()))
