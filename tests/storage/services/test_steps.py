"""The steps that other apps' workflows take, on simulated machines: failed at each of them, the world is as before."""

import uuid
from typing import Any, ClassVar

import pytest
from django.db import transaction

from cloud.common.actor import Actor
from cloud.common.wire import Failure
from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import Context, Step, Workflow
from storage.drivers.fake import WORLDS
from storage.models import CacheState, Image, ImageCache, StorageCapacity, Volume, VolumeState
from storage.services import images, volumes
from storage.services.placement import VolumeNeed
from storage.workflows.steps import CacheImages, CreateVolumes, DeleteVolumes, VolumeReservation
from tests.factories.infra import HostFactory, ZoneFactory
from tests.factories.storage import GIB, BackupStorageFactory, storage_on

pytestmark = pytest.mark.django_db

URL = "http://203.0.113.1/image.qcow2"
DATA = b"mica" * 1000


class Fails(Step):
    label = "Fails"

    def run(self, ctx: Context) -> None:
        if ctx["fails"]:
            raise RuntimeError("as asked")


class MakeDisks(Workflow):
    name = "test.make_disks"
    steps: ClassVar[list[type[Step]]] = [VolumeReservation, CacheImages, CreateVolumes, Fails]


class DropDisks(Workflow):
    name = "test.drop_disks"
    steps: ClassVar[list[type[Step]]] = [DeleteVolumes]


@pytest.fixture
def host(touched: list[Any]) -> Any:
    return HostFactory()


@pytest.fixture
def capacity(host: Any) -> StorageCapacity:
    return storage_on(host, path="/srv/primary")


@pytest.fixture
def image(host: Any, line: Any, machines: Any, actor: Actor) -> Image:
    BackupStorageFactory()
    machines.web[URL] = DATA
    (image,), _job = images.add(actor=actor, name="debian", url=URL)
    line.run()
    line.seen.clear()
    image.refresh_from_db()
    return image


def begin(host: Any, image: Image | None, actor: Actor, *, fails: bool = False) -> tuple[list[Volume], Job]:
    with transaction.atomic():
        made = [
            volumes.create(
                uuid=uuid.uuid4(),
                name=f"disk-{index}",
                kind="root" if index == 0 and image else "data",
                need=need,
                host=host,
                project=host.project,
                instance_uuid=None,
                device_index=index,
            )
            for index, need in enumerate([VolumeNeed(GIB, image=image), VolumeNeed(2 * GIB)])
        ]
        context = {"agent": str(host.agent_id), "volumes": [str(volume.pk) for volume in made], "fails": fails}
        return made, jobs.open(MakeDisks, resource=ZoneFactory(), actor=actor, context=context)


def ended(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def expect_nothing(capacity: StorageCapacity) -> None:
    capacity.refresh_from_db()
    assert not Volume.objects.exists()
    assert WORLDS["/srv/primary"].volumes == {}
    kept = sum(ImageCache.objects.filter(state=CacheState.READY).values_list("size_bytes", flat=True))
    assert capacity.used_bytes == kept
    assert not ImageCache.objects.filter(state=CacheState.PENDING).exists()


def test_made_and_dropped(host: Any, capacity: Any, image: Image, line: Any, actor: Actor) -> None:
    made, job = begin(host, image, actor)
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    world = WORLDS["/srv/primary"]
    assert set(world.images) == {str(image.pk)}
    assert {name: volume.image for name, volume in world.volumes.items()} == {
        str(made[0].pk): str(image.pk),
        str(made[1].pk): None,
    }
    assert set(Volume.objects.values_list("state", flat=True)) == {VolumeState.READY}
    assert ImageCache.objects.get().state == CacheState.READY

    second, job = begin(host, image, actor)
    line.run()
    assert [command.task for command in line.seen].count("storage.cache_images") == 1
    assert world.transfers == 1

    every = [str(volume.pk) for volume in (*made, *second)]
    with transaction.atomic():
        context = {"agent": str(host.agent_id), "volumes": every}
        job = jobs.open(DropDisks, resource=ZoneFactory(), actor=actor, context=context)
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    expect_nothing(capacity)
    assert set(world.images) == {str(image.pk)}


def test_a_failure_after_all_of_them(host: Any, capacity: Any, image: Image, line: Any, actor: Actor) -> None:
    _made, job = begin(host, image, actor, fails=True)
    line.run()
    assert ended(job).state == JobState.FAILED
    expect_nothing(capacity)


@pytest.mark.parametrize("task", ["storage.cache_images", "storage.create_volumes"])
def test_a_failure_on_the_machine(
    host: Any, capacity: Any, image: Image, line: Any, machines: Any, actor: Actor, task: str, monkeypatch: Any
) -> None:
    obey = machines.obey

    def refuse(command: Any, agent: str) -> Any:
        return Failure("rejected", "storage_full", "full") if command.task == task else obey(command, agent)

    monkeypatch.setattr(machines, "obey", refuse)
    _made, job = begin(host, image, actor)
    line.run()
    assert (ended(job).state, ended(job).error["code"]) == (JobState.FAILED, "storage_full")
    expect_nothing(capacity)


def test_an_undo_that_fails_keeps_the_promise(
    host: Any, capacity: Any, line: Any, machines: Any, actor: Actor, monkeypatch: Any
) -> None:
    monkeypatch.setattr(machines, "obey", lambda command, agent: Failure("failed", "broken", "broken"))
    made, job = begin(host, None, actor)
    line.run()
    assert ended(job).state == JobState.STUCK
    assert Volume.objects.count() == len(made)
    capacity.refresh_from_db()
    assert capacity.used_bytes == 3 * GIB


def test_an_image_server_that_is_away(host: Any, capacity: Any, image: Image, line: Any, actor: Actor) -> None:
    _made, job = begin(host, image, actor)
    type(image.backup_storage).objects.update(connection="disconnected")
    line.run()
    assert ended(job).error["code"] == "image_server_away"
    expect_nothing(capacity)
