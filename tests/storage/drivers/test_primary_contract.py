"""The contract of primary storages, on the fake and on the local driver with the real qemu-img."""

import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud.common.driver import Aborted, NotFound, Rejected, Transient
from storage.drivers.base import PrimaryStorage
from storage.drivers.fake import WORLDS, FakeStorage
from storage.drivers.local import LocalStorage
from tests.storage.doubles import Watcher, broken, disk, qemu_img, sha256, source

MIB = 1 << 20


@pytest.fixture(params=["fake", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> PrimaryStorage:
    path = str(tmp_path / "primary")
    driver: PrimaryStorage = FakeStorage(path) if request.param == "fake" else LocalStorage(path)
    driver.prepare()
    request.addfinalizer(lambda: WORLDS.pop(path, None))
    return driver


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


class TestLocal:
    """What only files can show."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "primary"

    @pytest.fixture
    def local(self, path: Path) -> LocalStorage:
        driver = LocalStorage(str(path))
        driver.prepare()
        return driver

    def test_two_at_once_make_one_transfer(self, local: LocalStorage, image: bytes) -> None:
        name, gate, opened = new(), threading.Event(), []
        inner = source(image)

        def slow_source() -> object:
            opened.append(1)
            gate.wait(10)
            return inner()

        def pull(watch: Watcher) -> None:
            local.cache_image(
                name,
                size_bytes=len(image),
                sha256=sha256(image),
                reserve_bytes=0,
                open_source=slow_source,  # type: ignore[arg-type]
                watch=watch,
            )

        waiting = threading.Event()

        class Second(Watcher):
            def progress(self, done: int, total: int, text: str = "") -> None:
                waiting.set()

        threads = [threading.Thread(target=pull, args=(Watcher(),)), threading.Thread(target=pull, args=(Second(),))]
        threads[0].start()
        while not opened:
            threads[0].join(0.01)
        threads[1].start()
        assert waiting.wait(10)
        gate.set()
        for thread in threads:
            thread.join(10)
        assert len(opened) == 1
        assert local.images() == [name]

    def test_whoever_waits_for_another_transfer_can_be_aborted(self, local: LocalStorage, path: Path) -> None:
        from storage.drivers import transfer

        name = new()
        with transfer.held(path / "cache" / f"{name}.qcow2.lock", Watcher()), pytest.raises(Aborted):
            local.cache_image(
                name,
                size_bytes=1,
                sha256="x",
                reserve_bytes=0,
                open_source=source(b"x"),
                watch=Watcher(abort_after=2),
            )

    def test_what_a_killed_agent_left_is_cleared(self, local: LocalStorage, path: Path) -> None:
        name = new()
        (path / "cache" / f"{name}.qcow2.part").write_bytes(b"half")
        (path / "trash" / "left").write_bytes(b"x")
        local.prepare()
        assert [file for folder in ("cache", "trash") for file in (path / folder).iterdir()] == []

    def test_a_transfer_at_work_is_not_cleared(self, local: LocalStorage, path: Path) -> None:
        from storage.drivers import transfer

        name = new()
        part = path / "cache" / f"{name}.qcow2.part"
        part.write_bytes(b"half")
        with transfer.held(path / "cache" / f"{name}.qcow2.lock", Watcher()):
            local.prepare()
            local.forget_partial_image(name)
            assert part.exists()

    def test_a_volume_smaller_than_its_image_is_refused(self, local: LocalStorage, image: bytes) -> None:
        name = new()
        local.cache_image(
            name, size_bytes=len(image), sha256=sha256(image), reserve_bytes=0, open_source=source(image), watch=Watcher()
        )
        with pytest.raises(Rejected) as refused:
            local.create_volume(new(), size_bytes=MIB // 2, image=name)
        assert refused.value.code == "volume_too_small"
        assert local.volumes() == []

    def test_a_link_out_of_the_storage_is_not_followed(self, local: LocalStorage, path: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        os.rmdir(path / "volumes")
        (path / "volumes").symlink_to(outside)
        with pytest.raises(Rejected) as refused:
            local.create_volume(new(), size_bytes=MIB, image=None)
        assert refused.value.code == "outside_storage"
        assert list(outside.iterdir()) == []

    def test_a_file_where_the_storage_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(Rejected) as refused:
            LocalStorage(str(tmp_path / "taken")).prepare()
        assert refused.value.code == "storage_path_taken"

    def test_held_bytes_are_those_of_its_files(self, local: LocalStorage, path: Path) -> None:
        (path / "volumes" / "x").write_bytes(b"1" * MIB)
        assert local.capacity().held_bytes >= MIB

    def test_the_overlay_reads_the_images_data(self, local: LocalStorage, path: Path, tmp_path: Path) -> None:
        raw = tmp_path / "disk.raw"
        raw.write_bytes(b"mica" * 256 * 1024)
        made = tmp_path / "disk.qcow2"
        qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, made)
        data, image, name = made.read_bytes(), new(), new()
        local.cache_image(
            image, size_bytes=len(data), sha256=sha256(data), reserve_bytes=0, open_source=source(data), watch=Watcher()
        )
        local.create_volume(name, size_bytes=2 * MIB, image=image)
        found = local.volume(name)
        assert found is not None
        out = tmp_path / "out.raw"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", found.path, out)
        assert out.read_bytes()[: len(raw.read_bytes())] == raw.read_bytes()
