"""The contract of primary storages, on the fake and on the local driver with the real qemu-img."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.common.driver import Aborted, NotFound, Rejected, Transient
from storage.drivers.base import PrimaryStorage
from storage.drivers.fake import WORLDS, FakeStorage
from storage.drivers.local import LocalStorage
from tests.storage.doubles import Watcher, broken, disk, sha256, source

MIB = 1 << 20


@pytest.fixture(params=["fake", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrimaryStorage]:
    path = str(tmp_path / "primary")
    driver: PrimaryStorage = FakeStorage(path) if request.param == "fake" else LocalStorage(path)
    driver.prepare()
    yield driver
    WORLDS.pop(path, None)


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return disk(tmp_path)


Cache = Callable[..., str]


@pytest.fixture
def cache(storage: PrimaryStorage, image: bytes) -> Cache:
    """Puts an image into the storage's cache; returns its uuid."""

    def put(name: str = "", data: bytes = image) -> str:
        name = name or str(uuid.uuid4())
        storage.cache_image(
            name, size_bytes=len(data), sha256=sha256(data), reserve_bytes=0, open_source=source(data), watch=Watcher()
        )
        return name

    return put


def new() -> str:
    return str(uuid.uuid4())


def test_prepared_twice_it_is_empty_and_has_room(storage: PrimaryStorage) -> None:
    storage.prepare()
    found = storage.capacity()
    assert found.total_bytes >= found.available_bytes > 0
    assert storage.images() == storage.volumes() == []


def test_an_empty_volume(storage: PrimaryStorage) -> None:
    name = new()
    storage.create_volume(name, size_bytes=3 * MIB, image=None)
    found = storage.volume(name)
    assert found is not None
    assert (found.size_bytes, found.format, found.image) == (3 * MIB, "qcow2", None)
    assert storage.volumes() == [name]


def test_a_volume_on_an_image(storage: PrimaryStorage, cache: Cache) -> None:
    image, name = cache(), new()
    storage.create_volume(name, size_bytes=5 * MIB, image=image)
    found = storage.volume(name)
    assert found is not None
    assert (found.size_bytes, found.image) == (5 * MIB, image)


def test_made_twice_is_made_once(storage: PrimaryStorage, cache: Cache) -> None:
    image, name = cache(), new()
    for _time in range(2):
        storage.create_volume(name, size_bytes=5 * MIB, image=image)
    assert storage.volumes() == [name]


def test_another_volume_of_the_same_uuid_is_refused(storage: PrimaryStorage) -> None:
    name = new()
    storage.create_volume(name, size_bytes=MIB, image=None)
    with pytest.raises(Rejected) as refused:
        storage.create_volume(name, size_bytes=2 * MIB, image=None)
    assert refused.value.code == "volume_exists"


def test_an_image_that_is_not_cached(storage: PrimaryStorage) -> None:
    with pytest.raises(NotFound) as missing:
        storage.create_volume(new(), size_bytes=MIB, image=new())
    assert missing.value.code == "image_not_cached"
    assert storage.volumes() == []


def test_deleted_twice_is_deleted_once(storage: PrimaryStorage, cache: Cache) -> None:
    image, name = cache(), new()
    storage.create_volume(name, size_bytes=2 * MIB, image=image)
    for _time in range(2):
        storage.delete_volume(name)
    assert storage.volume(name) is None
    assert storage.images() == [image]


def test_an_image_is_transferred_once(storage: PrimaryStorage, cache: Cache) -> None:
    image = cache()
    storage.cache_image(
        image, size_bytes=1, sha256="x", reserve_bytes=0, open_source=broken(b"", Transient("x", "x")), watch=Watcher()
    )
    assert storage.images() == [image]


def test_a_wrong_checksum_leaves_nothing(storage: PrimaryStorage, image: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        storage.cache_image(
            new(), size_bytes=len(image), sha256="0" * 64, reserve_bytes=0, open_source=source(image), watch=Watcher()
        )
    assert refused.value.code == "checksum_mismatch"
    assert storage.images() == []


def test_a_source_that_breaks_off_leaves_nothing_and_may_be_tried_again(
    storage: PrimaryStorage, image: bytes, cache: Cache
) -> None:
    name = new()
    with pytest.raises(Transient):
        storage.cache_image(
            name,
            size_bytes=len(image),
            sha256=sha256(image),
            reserve_bytes=0,
            open_source=broken(image[:4096], Transient("stream_broken", "gone")),
            watch=Watcher(),
        )
    assert storage.images() == []
    assert cache(name) == name
    assert storage.images() == [name]


def test_an_abort_leaves_nothing(storage: PrimaryStorage, image: bytes) -> None:
    with pytest.raises(Aborted):
        storage.cache_image(
            new(),
            size_bytes=len(image),
            sha256=sha256(image),
            reserve_bytes=0,
            open_source=source(image),
            watch=Watcher(abort_after=0),
        )
    assert storage.images() == []


def test_more_than_announced_is_refused(storage: PrimaryStorage, image: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        storage.cache_image(
            new(),
            size_bytes=1000,
            sha256=sha256(image),
            reserve_bytes=0,
            open_source=source(image, None),
            watch=Watcher(),
        )
    assert refused.value.code == "image_too_large"


def test_the_reserve_stays_free(storage: PrimaryStorage, image: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        storage.cache_image(
            new(),
            size_bytes=len(image),
            sha256=sha256(image),
            reserve_bytes=1 << 60,
            open_source=source(image),
            watch=Watcher(),
        )
    assert refused.value.code == "storage_full"


def test_an_image_leaves_when_no_volume_stands_on_it(storage: PrimaryStorage, cache: Cache) -> None:
    image, name = cache(), new()
    storage.create_volume(name, size_bytes=2 * MIB, image=image)
    assert storage.evict_image(image) is False
    assert storage.images() == [image]
    storage.delete_volume(name)
    assert storage.evict_image(image) is True
    assert storage.evict_image(image) is True
    assert storage.images() == []


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a/b", "{0}", "X" * 36, str(uuid.uuid4()).upper()])
def test_only_canonical_uuids_become_files(storage: PrimaryStorage, name: str) -> None:
    acts: list[Callable[[], object]] = [
        lambda: storage.create_volume(name, size_bytes=MIB, image=None),
        lambda: storage.delete_volume(name),
        lambda: storage.volume(name),
        lambda: storage.evict_image(name),
        lambda: storage.forget_partial_image(name),
    ]
    for act in acts:
        with pytest.raises(Rejected):
            act()


@pytest.mark.parametrize("path", ["", "srv", "/", "/srv/../etc", "//srv", "/srv/", "/a\0b"])
def test_only_normal_absolute_paths_are_storages(path: str) -> None:
    for driver in (LocalStorage, FakeStorage):
        with pytest.raises(Rejected):
            driver(path)
