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


def test_what_lies_there_is_found(storage: PrimaryStorage, cache: Cache, image: bytes) -> None:
    kept, root, data = cache(), new(), new()
    storage.create_volume(root, size_bytes=5 * MIB, image=kept)
    storage.create_volume(data, size_bytes=3 * MIB, image=None)
    found = {(each.kind, each.name): each for each in storage.found()}
    assert found.keys() == {("image", kept), ("volume", root), ("volume", data)}
    assert (found["volume", root].size_bytes, found["volume", root].image) == (5 * MIB, kept)
    assert (found["volume", data].size_bytes, found["volume", data].image) == (3 * MIB, None)
    assert found["image", kept].size_bytes == len(image)
    assert storage.aside() == []


def test_a_volume_set_aside_comes_back_as_it_was(storage: PrimaryStorage, cache: Cache) -> None:
    image, name, id = cache(), new(), new()
    storage.create_volume(name, size_bytes=5 * MIB, image=image)
    before = storage.volume(name)
    for _time in range(2):
        storage.set_aside(id, "volume", name)
    assert storage.volumes() == []
    assert [(each.id, each.kind, each.name) for each in storage.aside()] == [(id, "volume", name)]
    storage.prepare()
    assert not storage.evict_image(image), "the volume in quarantine stands on it"
    storage.put_back(id)
    assert storage.volume(name) == before
    assert storage.aside() == []
    with pytest.raises(NotFound):
        storage.put_back(id)


def test_the_quarantine_is_purged(storage: PrimaryStorage) -> None:
    name, id = new(), new()
    storage.create_volume(name, size_bytes=MIB, image=None)
    storage.set_aside(id, "volume", name)
    for _time in range(2):
        storage.purge(id)
    assert storage.aside() == storage.found() == []


def test_an_image_is_set_aside_when_nothing_stands_on_it(storage: PrimaryStorage, cache: Cache) -> None:
    image, name, id = cache(), new(), new()
    storage.create_volume(name, size_bytes=5 * MIB, image=image)
    with pytest.raises(Rejected) as caught:
        storage.set_aside(id, "image", image)
    assert caught.value.code == "in_use"
    storage.delete_volume(name)
    storage.set_aside(id, "image", image)
    assert storage.images() == []
    storage.put_back(id)
    assert storage.images() == [image]


def test_what_came_in_between_is_not_overwritten(storage: PrimaryStorage) -> None:
    name, id = new(), new()
    storage.create_volume(name, size_bytes=MIB, image=None)
    storage.set_aside(id, "volume", name)
    storage.create_volume(name, size_bytes=2 * MIB, image=None)
    with pytest.raises(Rejected) as caught:
        storage.put_back(id)
    assert caught.value.code == "place_taken"
    assert [each.id for each in storage.aside()] == [id]


def test_what_is_not_there_cannot_be_set_aside(storage: PrimaryStorage) -> None:
    with pytest.raises(NotFound):
        storage.set_aside(new(), "volume", new())
    assert storage.aside() == []
