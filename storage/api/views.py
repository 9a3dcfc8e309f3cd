"""Lists of storage: thin."""

from django.db.models import BigIntegerField, OuterRef, Subquery, Sum, Value
from django.db.models.functions import Cast, Coalesce

from cloud.common.api.acts import act, creates, deletes, job_action, updates
from cloud.common.api.viewsets import ResourceViewSet
from cloud.common.relations import LOST, RECYCLED
from cloud.infra.services import agents
from storage.api.filters import PrimaryStorageFilters
from storage.api.serializers import (
    BackupStorageInput,
    BackupStorageSerializer,
    DiskOfferingInput,
    DiskOfferingSerializer,
    ImageChange,
    ImageDetailSerializer,
    ImageInput,
    ImageSerializer,
    PrimaryStorageDetailSerializer,
    PrimaryStorageInput,
    PrimaryStorageSerializer,
    SshInput,
    StorageClusterInput,
    VolumeSerializer,
)
from storage.models import BackupStorage, DiskOffering, Image, PrimaryStorage, StorageCapacity, Volume
from storage.services import backup_storages, disk_offerings, images, primary_storages, settling, volumes


def _sum(column: str) -> Coalesce:
    """The sum of a capacity column over the hosts, without multiplying the rows of the list."""
    rows = StorageCapacity.objects.filter(primary_storage=OuterRef("pk")).order_by().values("primary_storage")
    total = Subquery(rows.annotate(sum=Cast(Sum(column), BigIntegerField())).values("sum"))
    return Coalesce(total, Value(0), output_field=BigIntegerField())


class PrimaryStorageViewSet(ResourceViewSet):
    """Where volumes live."""

    queryset = (
        PrimaryStorage.objects.select_related("zone")
        .prefetch_related("clusters", "capacities__host")
        .annotate(
            total_bytes=_sum("total_bytes"), available_bytes=_sum("available_bytes"), used_bytes=_sum("used_bytes")
        )
    )
    serializer_class = PrimaryStorageDetailSerializer
    list_serializer_class = PrimaryStorageSerializer
    filterset_class = PrimaryStorageFilters
    act_permissions = {"create": "primary_storage.add"}
    create = creates(primary_storages.add, PrimaryStorageInput, is_job=True)
    partial_update = updates(primary_storages.update)
    destroy = deletes(primary_storages.delete, is_job=True, needs_preview=True)
    enable = act(primary_storages.enable)
    disable = act(primary_storages.disable)
    attach = job_action(primary_storages.attach, StorageClusterInput)
    detach = job_action(primary_storages.detach, StorageClusterInput)
    settle_state = act(settling.settle_storage)


class BackupStorageViewSet(ResourceViewSet):
    """Image servers: where images live."""

    queryset = BackupStorage.objects.select_related("agent")
    serializer_class = BackupStorageSerializer
    search_fields = ("name", "address")
    act_permissions = {"create": "backup_storage.add", "upgrade_agent": "agent.upgrade"}
    create = creates(backup_storages.add, BackupStorageInput, is_job=True)
    partial_update = updates(backup_storages.update)
    destroy = deletes(backup_storages.delete, is_job=True, needs_preview=True)
    enable = act(backup_storages.enable)
    disable = act(backup_storages.disable)
    reconnect = job_action(backup_storages.reconnect, SshInput)
    upgrade_agent = job_action(agents.upgrade_of)
    settle_state = act(settling.settle_storage)


class ImageViewSet(ResourceViewSet):
    """Templates of volumes, and ISOs. Deleting one puts it into the recycle bin."""

    queryset = Image.objects.all()
    serializer_class = ImageDetailSerializer
    list_serializer_class = ImageSerializer
    act_permissions = {"create": "image.add"}
    create = creates(images.add, ImageInput, is_job=True)
    partial_update = updates(images.update, ImageChange)
    destroy = deletes(images.delete, effect=RECYCLED, needs_preview=True)
    recover = act(images.recover)
    expunge = job_action(images.expunge, effect=LOST)
    settle_state = act(settling.settle_image)


class DiskOfferingViewSet(ResourceViewSet):
    """Sizes of volumes to choose from."""

    queryset = DiskOffering.objects.all()
    serializer_class = DiskOfferingSerializer
    create = creates(disk_offerings.create, DiskOfferingInput)
    partial_update = updates(disk_offerings.update)
    destroy = deletes(disk_offerings.delete)
    enable = act(disk_offerings.enable)
    disable = act(disk_offerings.disable)


class VolumeViewSet(ResourceViewSet):
    """Disks of instances."""

    queryset = Volume.objects.all()
    serializer_class = VolumeSerializer
    partial_update = updates(volumes.update)
    settle_state = act(settling.settle_volume)
