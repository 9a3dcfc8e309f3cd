"""Primary storages: what may be added where, how hosts make them usable, how they leave."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from cloud.common import relations
from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Invalid
from cloud.common.models import Connection
from cloud.infra.signals import agent_connected, agent_disconnected
from cloud.jobs.models import Job, JobState
from storage.messages import CapacityReport, StorageReport
from storage.models import CacheState, ImageCache, PrimaryStorage, StorageCapacity, StorageState
from storage.services import primary_storages, reports, sections
from tests.factories.infra import AgentFactory, ClusterFactory, HostFactory
from tests.factories.storage import GIB, BackupStorageFactory, ImageFactory, VolumeFactory, storage_on

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(touched: list[Any]) -> Any:
    return HostFactory()


def add(host: Any, actor: Actor, **more: Any) -> tuple[PrimaryStorage, Job]:
    fields = {"name": "local", "zone": host.cluster.zone, "path": "/srv/primary", "clusters": [host.cluster], **more}
    (storage,), job = primary_storages.add(actor=actor, **fields)
    return storage, job


def ended(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def report(host: Any, storage: Any, **fields: Any) -> None:
    one = StorageReport(str(storage.pk), **{"total_bytes": 10 * GIB, "available_bytes": 9 * GIB, **fields})
    reports.note(host.agent, CapacityReport([one]))


def test_added_when_every_host_has_it(host: Any, line: Any, machines: Any, actor: Actor, touched: Any) -> None:
    second = HostFactory(cluster=host.cluster)
    HostFactory(cluster=host.cluster, agent=AgentFactory(connection=Connection.DISCONNECTED))
    storage, job = add(host, actor)
    line.run()
    assert (host.agent_id, "storages") in touched
    machines.converge(host.agent)
    line.run()
    assert ended(job).state == JobState.RUNNING
    machines.converge(second.agent)
    line.run()
    storage.refresh_from_db()
    assert ended(job).state == JobState.SUCCEEDED
    assert (storage.state, storage.connection) == (StorageState.READY, Connection.CONNECTED)
    assert storage.capacities.get(host=host).available_bytes > 0


def test_a_host_that_cannot_use_it_fails_the_job_and_nothing_stays(host: Any, line: Any, actor: Actor) -> None:
    storage, job = add(host, actor)
    line.run()
    report(host, storage, failure="/srv/primary: read-only file system")
    line.run()
    done = ended(job)
    assert (done.state, done.error["code"]) == (JobState.FAILED, "storage_not_usable")
    assert "read-only" in done.error["detail"]["en"]
    assert not PrimaryStorage.objects.exists()
    assert not StorageCapacity.objects.exists()


def test_what_is_known_is_read_and_not_written(host: Any, django_assert_max_num_queries: Any) -> None:
    storage = storage_on(host).primary_storage
    report(host, storage, cached=[])
    before = StorageCapacity.objects.get()
    with django_assert_max_num_queries(2):
        report(host, storage, cached=[])
    assert StorageCapacity.objects.get().reported_at == before.reported_at
    report(host, storage, available_bytes=8 * GIB)
    assert StorageCapacity.objects.get().available_bytes == 8 * GIB
    report(host, storage, failure="gone")
    assert StorageCapacity.objects.get().failure == "gone"
    report(host, storage, available_bytes=8 * GIB)
    assert StorageCapacity.objects.get().failure == ""


def test_what_is_known_is_written_again_after_a_while(host: Any) -> None:
    storage = storage_on(host).primary_storage
    report(host, storage)
    StorageCapacity.objects.update(reported_at=Now() - timedelta(seconds=reports.KNOWN_FOR_S + 1))
    before = StorageCapacity.objects.get().reported_at
    report(host, storage)
    assert StorageCapacity.objects.get().reported_at > before


def test_without_clusters_it_is_ready_at_once(host: Any, line: Any, actor: Actor) -> None:
    storage, job = add(host, actor, clusters=[])
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    job = primary_storages.attach(storage, actor=actor, cluster=host.cluster)
    line.run()
    report(host, storage)
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    with pytest.raises(Conflict) as conflict:
        primary_storages.attach(storage, actor=actor, cluster=host.cluster)
    assert conflict.value.code == "already_attached"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "srv",
        "//srv/x",
        "/",
        "/etc",
        "/etc/x",
        "/srv",
        "/srv/../etc/x",
        "/srv/./x",
        "/usr/lib/x",
        "/a\n",
        "/x" * 600,
    ],
)
def test_paths_of_the_system_are_refused(host: Any, actor: Actor, path: str) -> None:
    with pytest.raises(Invalid) as invalid:
        add(host, actor, path=path)
    assert "path" in invalid.value.errors


@pytest.mark.parametrize("path", ["/srv/primary", "/srv/primary/inner", "/srv/primary/"])
def test_one_path_is_one_storage(host: Any, actor: Actor, line: Any, path: str) -> None:
    add(host, actor)
    with pytest.raises(Conflict) as conflict:
        add(host, actor, name="other", path=path)
    assert conflict.value.code == "path_taken"


def test_one_name_a_zone(host: Any, actor: Actor, line: Any) -> None:
    add(host, actor)
    with pytest.raises(Conflict) as conflict:
        add(host, actor, path="/srv/second")
    assert conflict.value.code == "name_taken"


def test_clusters_of_another_zone(host: Any, actor: Actor) -> None:
    with pytest.raises(Invalid) as invalid:
        add(host, actor, clusters=[ClusterFactory()])
    assert invalid.value.code == "other_zone"


def test_not_deleted_or_detached_while_volumes_are_on_it(host: Any, actor: Actor) -> None:
    storage = storage_on(host).primary_storage
    VolumeFactory(primary_storage=storage, host=host)
    for act in (
        lambda: primary_storages.delete(storage, actor=actor),
        lambda: primary_storages.detach(storage, actor=actor, cluster=host.cluster),
    ):
        with pytest.raises(Conflict) as conflict:
            act()
        assert conflict.value.code == "in_use"
    assert StorageCapacity.objects.get().is_open
    assert relations.blocking([host])[host.pk] == {"volume": 1}
    for place in (host.cluster, host.cluster.zone):
        assert relations.blocking([place])[place.pk]["primary_storage"] == 1


def test_cached_images_leave_before_the_storage(host: Any, actor: Actor, line: Any) -> None:
    storage = storage_on(host).primary_storage
    image = ImageFactory()
    ImageCache.objects.create(
        image=image, image_uuid=image.pk, primary_storage=storage, host=host, size_bytes=1, state=CacheState.READY
    )
    job = primary_storages.delete(storage, actor=actor)
    line.run()
    assert sections.storages(host.agent)["storages"][0]["evict"] == [str(image.pk)]
    report(host, storage, cached=[str(image.pk)])
    line.run()
    assert ended(job).state == JobState.RUNNING
    report(host, storage, cached=[])
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    assert not PrimaryStorage.objects.exists()
    assert sections.storages(host.agent) == {"storages": []}


def test_a_silent_host_does_not_hold_its_storage_back(host: Any, actor: Actor, line: Any) -> None:
    storage = storage_on(host).primary_storage
    image = ImageFactory()
    ImageCache.objects.create(
        image=image, image_uuid=image.pk, primary_storage=storage, host=host, size_bytes=1, state=CacheState.READY
    )
    host.agent.connection = Connection.DISCONNECTED
    host.agent.save()
    job = primary_storages.detach(storage, actor=actor, cluster=host.cluster)
    line.run()
    assert ended(job).state == JobState.SUCCEEDED
    assert not storage.attachments.exists()
    assert not ImageCache.objects.exists()


def test_connection_follows_the_hosts(host: Any) -> None:
    storage = storage_on(host).primary_storage
    agent = host.agent

    def turn(connection: str, signal: Any, **more: Any) -> str:
        agent.connection = connection
        agent.save()
        signal.send(type(agent), agent=agent, **more)
        storage.refresh_from_db()
        return str(storage.connection)

    assert turn(Connection.DISCONNECTED, agent_disconnected) == Connection.DISCONNECTED
    assert turn(Connection.CONNECTED, agent_connected, rebooted=False) == Connection.CONNECTED


def test_a_new_host_hears_of_its_storages(transactional_db: None, touched: list[Any]) -> None:
    host = HostFactory()
    agent_connected.send(type(host.agent), agent=host.agent, rebooted=False)
    agent_connected.send(type(host.agent), agent=host.agent, rebooted=False)
    assert touched.count((host.agent_id, "storages")) == 1


def test_a_report_is_heard_for_ones_own_storages_only(host: Any) -> None:
    other = storage_on(HostFactory()).primary_storage
    server = BackupStorageFactory()
    report(host, other, total_bytes=1)
    report(host, server, total_bytes=1)
    assert not StorageCapacity.objects.filter(host=host).exists()
    server.refresh_from_db()
    assert server.total_bytes != 1
    report(server, server, total_bytes=77, available_bytes=7)
    server.refresh_from_db()
    assert (server.total_bytes, server.available_bytes) == (77, 7)


def test_a_failing_storage_keeps_its_last_figures(host: Any) -> None:
    capacity = storage_on(host)
    report(host, capacity.primary_storage, failure="gone", total_bytes=0)
    capacity.refresh_from_db()
    assert (capacity.failure, capacity.total_bytes) == ("gone", 101 * GIB)
