"""Primary storages, image servers, images, volumes for tests."""

import uuid
from typing import Any

import factory
from django.db.models.functions import Now

from cloud.accounts.services import bootstrap
from cloud.common.models import Connection
from cloud.infra.models import AgentKind
from storage.models import (
    BackupStorage,
    DiskOffering,
    Image,
    ImageState,
    PrimaryStorage,
    PrimaryStorageAttachment,
    StorageCapacity,
    StorageState,
    Volume,
    VolumeState,
)
from tests.factories.infra import AgentFactory, HostFactory, ZoneFactory

GIB = 1024**3


class _Resource(factory.django.DjangoModelFactory):
    class Meta:
        abstract = True

    project = factory.LazyFunction(bootstrap.admin_project)


class PrimaryStorageFactory(_Resource):
    """A ready, connected local storage, not attached to anything."""

    class Meta:
        model = PrimaryStorage

    name = factory.Sequence(lambda n: f"storage-{n}")
    zone = factory.SubFactory(ZoneFactory)
    path = factory.Sequence(lambda n: f"/srv/primary-{n}")
    state = StorageState.READY
    connection = Connection.CONNECTED


class BackupStorageFactory(_Resource):
    """A ready, connected image server."""

    class Meta:
        model = BackupStorage

    name = factory.Sequence(lambda n: f"image-server-{n}")
    agent = factory.SubFactory(AgentFactory, kind=AgentKind.IMAGE_SERVER)
    address = factory.SelfAttribute("agent.address")
    path = "/srv/images"
    state = StorageState.READY
    connection = Connection.CONNECTED
    total_bytes = available_bytes = 1024 * GIB


class ImageFactory(_Resource):
    """A ready qcow2 of 2 GiB, its file of 1 GiB."""

    class Meta:
        model = Image

    name = factory.Sequence(lambda n: f"image-{n}")
    backup_storage = factory.SubFactory(BackupStorageFactory)
    url = "http://203.0.113.1/image.qcow2"
    state = ImageState.READY
    format = "qcow2"
    size_bytes = 2 * GIB
    actual_size_bytes = GIB
    content_sha256 = "0" * 64


class DiskOfferingFactory(_Resource):
    class Meta:
        model = DiskOffering

    name = factory.Sequence(lambda n: f"offering-{n}")
    size_bytes = 10 * GIB


class VolumeFactory(_Resource):
    """A data volume's row alone: it holds no promise of its storage."""

    class Meta:
        model = Volume

    name = factory.Sequence(lambda n: f"volume-{n}")
    kind = "data"
    size_bytes = GIB
    primary_storage = factory.SubFactory(PrimaryStorageFactory)
    state = VolumeState.READY
    instance_uuid = factory.LazyFunction(uuid.uuid4)
    device_index = 0


def storage_on(host: Any = None, *, total_bytes: int = 101 * GIB, **fields: Any) -> StorageCapacity:
    """A storage attached to the cluster of a host (a fresh one by default), which has reported this size, all free."""
    host = host or HostFactory()
    storage = PrimaryStorageFactory(zone=host.cluster.zone, **fields)
    PrimaryStorageAttachment.objects.create(primary_storage=storage, cluster=host.cluster)
    capacity: StorageCapacity = StorageCapacity.objects.create(
        primary_storage=storage, host=host, total_bytes=total_bytes, available_bytes=total_bytes, reported_at=Now()
    )
    return capacity
