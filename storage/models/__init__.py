from storage.models.image import BackupStorage, Image, ImageFormat, ImageState, Media
from storage.models.primary import PrimaryStorage, PrimaryStorageAttachment, StorageCapacity, StorageKind, StorageState
from storage.models.volume import CacheState, DiskOffering, ImageCache, Volume, VolumeKind, VolumeState

__all__ = [
    "BackupStorage",
    "CacheState",
    "DiskOffering",
    "Image",
    "ImageCache",
    "ImageFormat",
    "ImageState",
    "Media",
    "PrimaryStorage",
    "PrimaryStorageAttachment",
    "StorageCapacity",
    "StorageKind",
    "StorageState",
    "Volume",
    "VolumeKind",
    "VolumeState",
]
