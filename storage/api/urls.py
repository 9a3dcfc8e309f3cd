from storage.api.views import (
    BackupStorageViewSet,
    DiskOfferingViewSet,
    ImageViewSet,
    PrimaryStorageViewSet,
    VolumeViewSet,
)

routes = [
    ("primary-storages", PrimaryStorageViewSet),
    ("backup-storages", BackupStorageViewSet),
    ("images", ImageViewSet),
    ("disk-offerings", DiskOfferingViewSet),
    ("volumes", VolumeViewSet),
]
