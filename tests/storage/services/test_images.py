"""An image's life: fetched by an image server, binned, recovered, expunged; and what goes wrong on the way."""

from typing import Any

import pytest
from django.db import transaction

from cloud.common.actor import Actor, platform
from cloud.common.driver import Rejected, Transient
from cloud.common.errors import Conflict, Invalid, Missing
from cloud.common.models import Availability, Connection
from cloud.common.wire import Failure
from cloud.config.models import Override
from cloud.events.models import AuditRecord
from cloud.jobs.models import Job, JobState
from storage.messages import DownloadImage
from storage.models import CacheState, Image, ImageCache, ImageState, refused
from storage.services import images
from tests.factories.infra import AgentFactory, HostFactory
from tests.factories.storage import BackupStorageFactory, ImageFactory, VolumeFactory, storage_on
from tests.storage.doubles import sha256

pytestmark = pytest.mark.django_db

URL = "http://203.0.113.1/image.qcow2"
DATA = b"mica" * 1000


@pytest.fixture
def server(touched: list[Any]) -> Any:
    return BackupStorageFactory()


def add(actor: Actor, **more: Any) -> tuple[Image, Job]:
    (image,), job = images.add(actor=actor, **{"name": "debian", "url": URL, **more})
    return image, job


def ended(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def test_an_image_is_fetched(server: Any, line: Any, machines: Any, actor: Actor) -> None:
    machines.web[URL] = DATA
    image, job = add(actor, checksum=f"SHA256:{sha256(DATA)}")
    assert (image.state, image.activity) == (ImageState.DOWNLOADING, "downloading")
    line.run()
    image.refresh_from_db()
    assert ended(job).state == JobState.SUCCEEDED
    assert (image.state, image.activity, image.format) == (ImageState.READY, "", "qcow2")
    assert image.size_bytes == image.actual_size_bytes == len(DATA)
    assert image.content_sha256 == sha256(DATA)
    assert line.seen[0].task == DownloadImage.kind
    assert AuditRecord.objects.filter(action="image.add", resource_uuid=image.pk).exists()


def test_without_a_checksum_the_computed_one_is_kept(server: Any, line: Any, machines: Any, actor: Actor) -> None:
    machines.web[URL] = DATA
    image, _job = add(actor)
    line.run()
    image.refresh_from_db()
    assert image.checksum == f"sha256:{sha256(DATA)}"


@pytest.mark.parametrize(
    ("error", "fields", "code"),
    [
        (Rejected("http_status", "404"), {}, "http_status"),
        (Rejected("address_refused", "inside"), {}, "address_refused"),
        (None, {"checksum": "sha256:" + "0" * 64}, "checksum_mismatch"),
    ],
)
def test_what_fails_leaves_only_the_job(
    server: Any, line: Any, machines: Any, actor: Actor, error: Exception | None, fields: dict[str, str], code: str
) -> None:
    machines.web[URL] = error or DATA
    _image, job = add(actor, **fields)
    line.run()
    done = ended(job)
    assert (done.state, done.error["code"]) == (JobState.FAILED, code)
    assert done.error["advice"]["en"]
    assert not Image.objects.exists()
    assert line.names() == ["storage.download_image run", "storage.delete_image undo"]


def test_larger_than_the_limit(server: Any, line: Any, machines: Any, actor: Actor) -> None:
    Override.objects.create(name="image.max_size", value=100)
    machines.web[URL] = DATA
    _image, job = add(actor)
    line.run()
    assert ended(job).error["code"] == "image_too_large"
    assert not Image.objects.exists()


def test_a_passing_fault_is_tried_again(server: Any, line: Any, machines: Any, actor: Actor) -> None:
    machines.web[URL] = Transient("connection_broken", "gone")
    _image, job = add(actor)
    line.run()
    assert ended(job).attempt == 2
    assert "pause" in ended(job).waiting


def test_a_file_that_stays_is_a_broken_image(server: Any, line: Any, actor: Actor, places: Any) -> None:
    line.reply = lambda command: Failure("rejected", "storage_not_writable", "read-only")
    image, job = add(actor)
    line.run()
    image.refresh_from_db()
    assert ended(job).state == JobState.STUCK
    assert (image.state, image.activity) == (ImageState.ERROR, "")
    images.delete(image, actor=actor)
    images.recover(image, actor=actor)
    assert Image.objects.get().state == ImageState.ERROR


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("url", {"url": "ftp://203.0.113.1/x"}),
        ("url", {"url": "file:///etc/passwd"}),
        ("url", {"url": "http://"}),
        ("url", {"url": "http://[::1"}),
        ("url", {"url": "http://x:y/"}),
        ("url", {"url": "http://user:secret@203.0.113.1/x"}),
        ("url", {"url": "http://203.0.113.1/a b"}),
        ("checksum", {"checksum": "sha1:aa"}),
        ("checksum", {"checksum": "sha256:xyz"}),
        ("checksum", {"checksum": "md5:" + "0" * 64}),
    ],
)
def test_input_that_makes_no_sense(server: Any, actor: Actor, field: str, fields: dict[str, str]) -> None:
    with pytest.raises(Invalid) as invalid:
        add(actor, **fields)
    assert field in invalid.value.errors
    assert not Image.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [{"connection": Connection.DISCONNECTED}, {"availability": Availability.DISABLED}, {"state": "creating"}, None],
)
def test_no_server_can_take_it(actor: Actor, touched: Any, fields: dict[str, Any] | None) -> None:
    wanted = BackupStorageFactory(**fields) if fields else None
    for backup_storage in (None, wanted):
        with pytest.raises(Conflict) as conflict:
            add(actor, backup_storage=backup_storage)
        assert conflict.value.code == "no_image_server"


def test_a_server_that_is_not_ones_own_is_absent(server: Any) -> None:
    stranger = Actor(name="x", grants=frozenset({"image.*"}))
    with pytest.raises(Missing):
        add(stranger, backup_storage=server)


def test_binned_and_recovered(server: Any, actor: Actor) -> None:
    image = ImageFactory(backup_storage=server)
    with pytest.raises(Conflict):
        images.recover(image, actor=actor)
    images.delete(image, actor=actor)
    image.refresh_from_db()
    assert (image.state, image.deleted_at is not None) == (ImageState.DELETED, True)
    with pytest.raises(Conflict):
        images.delete(image, actor=actor)
    images.recover(image, actor=actor)
    image.refresh_from_db()
    assert (image.state, image.deleted_at) == (ImageState.READY, None)


def test_expunged_everywhere(server: Any, line: Any, machines: Any, actor: Actor, touched: Any) -> None:
    machines.web[URL] = DATA
    image, _job = add(actor)
    line.run()
    host = HostFactory()
    storage = storage_on(host).primary_storage
    ImageCache.objects.create(
        image=image, image_uuid=image.pk, primary_storage=storage, host=host, size_bytes=1, state=CacheState.READY
    )
    with pytest.raises(Conflict):
        images.expunge(image, actor=actor)
    images.delete(image, actor=actor)
    job = images.expunge(image, actor=actor)
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    assert not Image.objects.exists()
    assert ImageCache.objects.get().state == CacheState.EVICTING
    assert (host.agent_id, "storages") in touched
    machines.converge(host.agent)
    assert not ImageCache.objects.exists()


def test_not_expunged_while_instances_are_made_from_it(server: Any, actor: Actor) -> None:
    image = ImageFactory(backup_storage=server, state=ImageState.DELETED)
    host = HostFactory()
    storage = storage_on(host).primary_storage
    cache = ImageCache.objects.create(
        image=image, image_uuid=image.pk, primary_storage=storage, host=host, size_bytes=1
    )
    VolumeFactory(primary_storage=storage, host=host, image=image, cache=cache)
    with pytest.raises(Conflict) as conflict:
        images.expunge(image, actor=actor)
    assert conflict.value.code == "in_use"


def test_a_copy_that_nobody_is_sure_of_leaves_too(
    server: Any, line: Any, machines: Any, touched: Any, actor: Actor
) -> None:
    image = ImageFactory(backup_storage=server, state=ImageState.DELETED)
    host = HostFactory()
    storage = storage_on(host).primary_storage
    ImageCache.objects.create(image=image, image_uuid=image.pk, primary_storage=storage, host=host, size_bytes=1)
    images.expunge(image, actor=actor)
    line.run()
    assert ImageCache.objects.get().state == CacheState.EVICTING


def test_the_bin_is_emptied_in_time(server: Any, line: Any, machines: Any, touched: Any) -> None:
    from django.utils import timezone

    old, young = (ImageFactory(backup_storage=server, state=ImageState.DELETED) for _ in range(2))
    now = timezone.now()
    Image.objects.filter(pk=old.pk).update(deleted_at=now - timezone.timedelta(days=2))
    Image.objects.filter(pk=young.pk).update(deleted_at=now)
    images.empty_bin()
    line.run()
    assert list(Image.objects.all()) == [young]


def test_where_images_are_not_fetched_from(settings: Any, touched: Any) -> None:
    settings.MICA = {
        **settings.MICA,
        "management_networks": ["10.50.0.0/16"],
        "storage_networks": ["10.60.0.0/16"],
        "agent_redis_url": "rediss://10.70.0.1:6380/0",
    }
    inner = {"name": "eth0", "addresses": ["10.80.0.5/24", "fe80::1%eth0/64"]}
    facts = {"nics": [inner, {"name": "eth1", "addresses": ["203.0.113.21/24"]}]}
    AgentFactory(address="10.80.0.5", facts=facts)
    AgentFactory(address="store.example")
    Override.objects.create(name="image.refused_networks", value="10.90.0.0/16, nonsense")
    found = refused.networks()
    assert {"10.50.0.0/16", "10.60.0.0/16", "10.70.0.1/32", "10.80.0.0/24", "10.90.0.0/16", "127.0.0.0/8"} <= set(found)
    assert "203.0.113.0/24" not in found


def test_rights() -> None:
    image = ImageFactory()
    with pytest.raises(Missing):
        images.delete(image, actor=Actor(name="stranger", grants=frozenset({"*"})))
    assert platform().may("image.add")
    with transaction.atomic(), pytest.raises(Exception, match=r"image\.add"):
        add(Actor(name="nobody"))
