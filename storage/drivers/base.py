"""The contract of storage drivers: what a primary storage and an image store can do on the machine they are used from.

No Django, no database. Every act is idempotent: done already is success, and removing what is absent is success. What
fails raises a `cloud.common.driver.DriverError`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class Watch(Protocol):
    """Whoever asked for long work: told of its progress, and asked whether it should go on."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` bytes; total 0 when it is not known."""

    def check_aborted(self) -> None:
        """Raise `cloud.common.driver.Aborted` when control asked to stop."""


@dataclass(frozen=True)
class Capacity:
    """Bytes of the file system under a storage: its size, what is free, and what the storage's own files take."""

    total_bytes: int
    available_bytes: int
    held_bytes: int


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored: format, virtual size, size of the file, checksums (see `messages.ImageReport`)."""

    format: str
    size_bytes: int
    actual_size_bytes: int
    content_sha256: str
    source_sha256: str
    source_format: str


@dataclass(frozen=True)
class ImageOrder:
    """What is known of an image before it is fetched. `checksum` is `sha256:…`, `md5:…` or empty."""

    media: str
    format: str
    checksum: str
    max_bytes: int
    reserve_bytes: int


@dataclass(frozen=True)
class VolumeInfo:
    """A volume as it is on the storage. `image` is the uuid of the cached image it stands on."""

    size_bytes: int
    format: str
    path: str
    image: str | None


class Body(Protocol):
    """The bytes of something being fetched. `size_bytes` is what the sender announced, None when it did not say."""

    size_bytes: int | None

    def chunks(self) -> Iterator[bytes]: ...


Opener = Callable[[], AbstractContextManager[Body]]


@dataclass(frozen=True)
class FoundThing:
    """Something that lies on a storage. `kind` is volume, image or stranger (a file that no driver makes).

    `name` is the uuid, of a stranger its path inside the storage. `held_bytes` is what it takes there, `size_bytes` a
    volume's size as the guest sees it, `image` the uuid of the cached image it stands on; `at` when it was last
    changed, seconds since the epoch.
    """

    kind: str
    name: str
    held_bytes: int
    size_bytes: int = 0
    image: str | None = None
    at: float = 0.0


@dataclass(frozen=True)
class AsideThing:
    """Something in the quarantine of a storage: the quarantine's `id` for it, what it was, since when (epoch)."""

    id: str
    kind: str
    name: str
    held_bytes: int
    at: float


class Quarantining(ABC):
    """What every storage does for the doctor: tells what lies on it, and takes things out of the way unharmed."""

    @abstractmethod
    def found(self) -> list[FoundThing]:
        """Everything there but the quarantine and what is on its way out. Opens no file but to read its header."""

    @abstractmethod
    def aside(self) -> list[AsideThing]:
        """What the quarantine holds."""

    @abstractmethod
    def set_aside(self, id: str, kind: str, name: str) -> None:
        """Move a found thing into the quarantine of the same storage, under the uuid `id`.

        Raises NotFound when it is not there, Rejected `in_use` while somebody has it open or stands on it.
        """

    @abstractmethod
    def put_back(self, id: str) -> None:
        """Move it to where it was. Raises NotFound when the quarantine has no such thing, Rejected `place_taken`."""

    @abstractmethod
    def purge(self, id: str) -> None:
        """Remove it for good; absent is success."""


class PrimaryStorage(Quarantining):
    """Where volumes live, as seen from one host."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the storage needs on this machine and clear what an interrupted act left. Rejected if it cannot."""

    @abstractmethod
    def capacity(self) -> Capacity: ...

    @abstractmethod
    def images(self) -> list[str]:
        """The uuids of the images in the cache."""

    @abstractmethod
    def cache_image(
        self, image: str, *, size_bytes: int, sha256: str, reserve_bytes: int, open_source: Opener, watch: Watch
    ) -> None:
        """Have the image in the cache. Two calls at once make one transfer.

        Raises Rejected `checksum_mismatch` or `storage_full`, Transient when the source broke off.
        """

    @abstractmethod
    def forget_partial_image(self, image: str) -> None:
        """Remove what an interrupted transfer left, unless one is at work."""

    @abstractmethod
    def evict_image(self, image: str) -> bool:
        """Remove the image from the cache; False, and nothing is done, while a volume stands on it."""

    @abstractmethod
    def create_volume(self, uuid: str, *, size_bytes: int, image: str | None) -> None:
        """Make a volume: empty, or an overlay on a cached image.

        Raises NotFound when the image is not cached, Rejected when it is larger than the volume or when there is
        another volume of this uuid.
        """

    @abstractmethod
    def delete_volume(self, uuid: str) -> None: ...

    @abstractmethod
    def volume(self, uuid: str) -> VolumeInfo | None: ...

    @abstractmethod
    def volumes(self) -> list[str]: ...


class ImageStore(Quarantining):
    """Where images live, on an image server."""

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def capacity(self) -> Capacity: ...

    @abstractmethod
    def images(self) -> list[str]: ...

    @abstractmethod
    def image(self, uuid: str) -> StoredImage | None: ...

    @abstractmethod
    def add_image(self, uuid: str, order: ImageOrder, *, open_source: Opener, watch: Watch) -> StoredImage:
        """Fetch, check and keep an image; one that is there already is answered as it is.

        Raises Rejected with `checksum_mismatch`, `image_too_large`, `storage_full`, `not_an_image`, `format_mismatch`,
        `image_refers_outside`, `image_encrypted`; nothing is left then.
        """

    @abstractmethod
    def delete_image(self, uuid: str) -> None: ...

    @abstractmethod
    def open_image(self, uuid: str) -> BinaryIO:
        """The stored image for reading. Raises NotFound."""
