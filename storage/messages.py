"""What control asks of an agent about storage, and what the agent answers.

Standard library only: this module is on the agent's path. Messages are what travels by itself, with its `kind`; the
other dataclasses are parts of them. Sizes are bytes, paths absolute, checksums `algorithm:hex`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from cloud.common.wire import Message

# Who takes a file of a storage out of the way (`cloud.infra.messages.Thing`).
THING_KEEPER = "storage.thing"


@dataclass(frozen=True)
class StoragePlace:
    """Where a storage lives on a machine: `kind` names the driver (`local`, `imagestore`), `path` its directory."""

    uuid: str
    kind: str
    path: str


@dataclass(frozen=True)
class VolumeSource:
    """A volume as a domain needs it: the file behind the disk and what the guest sees of it.

    `serial` is what the guest reads as the disk's serial number (20 characters, from the uuid), `kind` root or data.
    The limits are what the disk may do a second; 0: as much as it can.
    """

    uuid: str
    kind: str
    path: str
    format: str
    size_bytes: int
    serial: str
    device_index: int
    storage_kind: str = "local"
    is_shareable: bool = False
    read_iops: int = 0
    write_iops: int = 0
    read_bytes_per_s: int = 0
    write_bytes_per_s: int = 0


@dataclass(frozen=True)
class DownloadImage(Message):
    """Fetch an image from `url` into an image server's storage. Answered by `ImageReport`.

    `format` ("" = find out) and `media` (root_template, data_template, iso) are what the user said; `checksum` may be
    "". No more than `max_bytes` are read, and `reserve_bytes` stay free. Addresses inside a network of `refused`
    (CIDRs) are never connected to.
    """

    kind: ClassVar[str] = "storage.download_image"

    image: str
    storage: StoragePlace
    url: str
    media: str
    max_bytes: int
    reserve_bytes: int
    refused: list[str]
    format: str = ""
    checksum: str = ""


@dataclass(frozen=True)
class ImageReport(Message):
    """A stored image. `size_bytes` is the virtual size, `actual_size_bytes` the file's; `content_sha256` is of the
    stored file, `source_sha256` of what was downloaded (they differ when the image was converted)."""

    image: str
    format: str
    size_bytes: int
    actual_size_bytes: int
    content_sha256: str
    source_sha256: str
    source_format: str


@dataclass(frozen=True)
class DeleteImage(Message):
    """Remove an image and whatever is left of its download from an image server; absent is fine."""

    kind: ClassVar[str] = "storage.delete_image"

    image: str
    storage: StoragePlace


@dataclass(frozen=True)
class ImageOrigin:
    """Where a host pulls an image from: an image server's stream door, with a ticket for `storage.image_read`."""

    image: str
    storage: StoragePlace
    actual_size_bytes: int
    content_sha256: str
    address: str
    port: int
    ticket: str


@dataclass(frozen=True)
class CacheImages(Message):
    """Have these images in the host's cache, pulling the ones it lacks."""

    kind: ClassVar[str] = "storage.cache_images"

    images: list[ImageOrigin]
    reserve_bytes: int = 0


@dataclass(frozen=True)
class CachedImage:
    image: str
    storage: str
    actual_size_bytes: int


@dataclass(frozen=True)
class CachedImages(Message):
    """The answer to `CacheImages`."""

    images: list[CachedImage] = field(default_factory=list)


@dataclass(frozen=True)
class PartialImage:
    image: str
    storage: StoragePlace


@dataclass(frozen=True)
class ForgetPartialImages(Message):
    """Remove what an interrupted `CacheImages` left; complete images and downloads at work stay."""

    kind: ClassVar[str] = "storage.forget_partial_images"

    images: list[PartialImage]


@dataclass(frozen=True)
class NewVolume:
    """A volume to make: empty, or an overlay on the cached image `image`."""

    uuid: str
    storage: StoragePlace
    size_bytes: int
    image: str | None = None


@dataclass(frozen=True)
class CreateVolumes(Message):
    """Make these volumes; one that is there already as asked for is left as it is."""

    kind: ClassVar[str] = "storage.create_volumes"

    volumes: list[NewVolume]


@dataclass(frozen=True)
class OldVolume:
    uuid: str
    storage: StoragePlace


@dataclass(frozen=True)
class DeleteVolumes(Message):
    """Remove these volumes for good; absent is fine."""

    kind: ClassVar[str] = "storage.delete_volumes"

    volumes: list[OldVolume]


@dataclass(frozen=True)
class WantedStorage:
    """One storage of the section `storages`: its directories are made, its capacity is told, `evict` leaves its cache.

    Only images that no volume will ever be made from again are evicted: their row is gone on the control side.
    """

    uuid: str
    kind: str
    path: str
    evict: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StorageReport:
    """What an agent says of one storage. `available_bytes` is free on the file system, `held_bytes` what the
    storage's own files take there, `cached` the images in its cache."""

    uuid: str
    total_bytes: int = 0
    available_bytes: int = 0
    held_bytes: int = 0
    cached: list[str] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class CapacityReport(Message):
    """Body of the observation `storage.capacity`: told on connect, each minute and when the section changes."""

    storages: list[StorageReport]
