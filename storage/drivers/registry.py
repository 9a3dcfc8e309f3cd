"""Which driver stands behind which kind of storage."""

from collections.abc import Callable

from cloud.common.driver import Unsupported
from storage.drivers.base import ImageStore, PrimaryStorage
from storage.drivers.fake import FakeImageStore, FakeStorage
from storage.drivers.imagestore import FileImageStore
from storage.drivers.local import LocalStorage

PRIMARY: dict[str, Callable[[str], PrimaryStorage]] = {"local": LocalStorage, "fake": FakeStorage}
IMAGES: dict[str, Callable[[str], ImageStore]] = {"imagestore": FileImageStore, "fake": FakeImageStore}


def primary(kind: str, path: str) -> PrimaryStorage:
    """The driver of a primary storage at `path`. Raises Unsupported for a kind that this agent does not know."""
    if kind not in PRIMARY:
        raise Unsupported("storage_kind_unknown", f"This agent knows no primary storage of the kind {kind!r}.")
    return PRIMARY[kind](path)


def image_store(kind: str, path: str) -> ImageStore:
    """The driver of an image store at `path`. Raises Unsupported for a kind that this agent does not know."""
    if kind not in IMAGES:
        raise Unsupported("storage_kind_unknown", f"This agent knows no image store of the kind {kind!r}.")
    return IMAGES[kind](path)
