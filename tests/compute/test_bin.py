"""The recycle bin: its clock, and when there is no way back."""

from typing import Any

import pytest

from cloud.common.errors import Conflict
from cloud.common.wire import Failure
from cloud.config import services as config
from cloud.infra.models import Host
from cloud.jobs.models import Job
from compute.models import Instance
from compute.services import bin as recycle_bin
from compute.services import instances
from tests.compute.world import World
from tests.factories.compute import InstanceFactory


class TestTheBinsClock:
    def test_what_is_due_is_expunged(self, world: World) -> None:
        before = world.ledger()
        old, young = world.create("old"), world.create("young")
        for instance in (old, young):
            world.act(instances.destroy, instance)
        Instance.objects.filter(pk=old.pk).update(destroyed_at="2001-01-01T00:00:00Z")
        recycle_bin.expunge_due()
        world.settle()
        assert [instance.name for instance in Instance.objects.all()] == ["young"]
        assert Job.objects.get(workflow="instance.expunge").actor_name == "recycle bin"
        recycle_bin.expunge_due()
        assert Instance.objects.exists()
        config.change("instance.expunge_delay_s", value=0, actor=world.admin)
        recycle_bin.expunge_due()
        world.settle()
        assert world.ledger() == before

    def test_what_cannot_be_expunged_does_not_stop_the_others(
        self, still: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("one", "two"):
            InstanceFactory(name=name, state="destroyed", destroyed_at="2001-01-01T00:00:00Z")
        tried = []

        def refuse(instance: Instance, *, actor: Any) -> None:
            tried.append(instance.name)
            raise Conflict("not now")

        monkeypatch.setattr(instances, "expunge", refuse)
        recycle_bin.expunge_due()
        assert tried == ["one", "two"]

    def test_what_lies_on_a_host_that_is_away_waits_for_it(self, world: World) -> None:
        world.destroyed()
        Instance.objects.update(destroyed_at="2001-01-01T00:00:00Z")
        Host.objects.update(connection="disconnected")
        recycle_bin.expunge_due()
        assert not Job.objects.filter(workflow="instance.expunge").exists()
        Host.objects.update(connection="connected")
        recycle_bin.expunge_due()
        world.settle()
        assert not Instance.objects.exists()


def test_no_way_back_once_files_are_going(world: World) -> None:
    instance = world.destroyed()
    obey = world.machines.obey

    def refuse(command: Any, agent: str) -> Any:
        is_it = command.task == "storage.delete_volumes"
        return Failure("failed", "disk_broken", "i/o error") if is_it else obey(command, agent)

    world.machines.obey = refuse  # type: ignore[method-assign]
    assert world.act(instances.expunge, instance).state == "failed"
    with pytest.raises(Conflict) as caught:
        instances.recover(instance, actor=world.admin)
    assert caught.value.code == "too_late"
    assert world.fresh(instance).activity == ""
    world.machines.obey = obey  # type: ignore[method-assign]
    assert world.act(instances.expunge, instance).state == "succeeded"
    world.expect_sums()
