"""What only files can show of local storage: locks, links, leftovers, the data in an overlay."""

import fcntl
import os
import struct
import threading
import uuid
from pathlib import Path

import pytest

from cloud.common.driver import Aborted, Rejected
from storage.drivers import transfer
from storage.drivers.local import LocalStorage
from tests.storage.doubles import Watcher, disk, qemu_img, sha256, source

MIB = 1 << 20


def new() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return disk(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "primary"


@pytest.fixture
def local(path: Path) -> LocalStorage:
    driver = LocalStorage(str(path))
    driver.prepare()
    return driver


def test_two_at_once_make_one_transfer(local: LocalStorage, image: bytes) -> None:
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


def test_whoever_waits_for_another_transfer_can_be_aborted(local: LocalStorage, path: Path) -> None:
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


def test_what_a_killed_agent_left_is_cleared(local: LocalStorage, path: Path) -> None:
    name = new()
    (path / "cache" / f"{name}.qcow2.part").write_bytes(b"half")
    (path / "trash" / "left").write_bytes(b"x")
    local.prepare()
    assert [file for folder in ("cache", "trash") for file in (path / folder).iterdir()] == []


def test_a_transfer_at_work_is_not_cleared(local: LocalStorage, path: Path) -> None:
    name = new()
    part = path / "cache" / f"{name}.qcow2.part"
    part.write_bytes(b"half")
    with transfer.held(path / "cache" / f"{name}.qcow2.lock", Watcher()):
        local.prepare()
        local.forget_partial_image(name)
        assert part.exists()


def test_a_volume_smaller_than_its_image_is_refused(local: LocalStorage, image: bytes) -> None:
    name = new()
    local.cache_image(
        name,
        size_bytes=len(image),
        sha256=sha256(image),
        reserve_bytes=0,
        open_source=source(image),
        watch=Watcher(),
    )
    with pytest.raises(Rejected) as refused:
        local.create_volume(new(), size_bytes=MIB // 2, image=name)
    assert refused.value.code == "volume_too_small"
    assert local.volumes() == []


def test_a_link_out_of_the_storage_is_not_followed(local: LocalStorage, path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.rmdir(path / "volumes")
    (path / "volumes").symlink_to(outside)
    with pytest.raises(Rejected) as refused:
        local.create_volume(new(), size_bytes=MIB, image=None)
    assert refused.value.code == "outside_storage"
    assert list(outside.iterdir()) == []


def test_a_file_where_the_storage_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(Rejected) as refused:
        LocalStorage(str(tmp_path / "taken")).prepare()
    assert refused.value.code == "storage_path_taken"


def test_held_bytes_are_those_of_its_files(local: LocalStorage, path: Path) -> None:
    (path / "volumes" / "x").write_bytes(b"1" * MIB)
    assert local.capacity().held_bytes >= MIB


def test_the_overlay_reads_the_images_data(local: LocalStorage, path: Path, tmp_path: Path) -> None:
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


def test_strangers_are_found_and_locks_are_not(local: LocalStorage, path: Path) -> None:
    (path / "notes.txt").write_text("x")
    (path / "volumes" / "disk.img").write_text("x")
    (path / "volumes" / f"{(part := new())}.qcow2.part").write_text("x")
    (path / "cache" / f"{new()}.qcow2.lock").write_text("")
    (path / "lost+found").mkdir()
    names = {thing.name for thing in local.found() if thing.kind == "stranger"}
    assert names == {"notes.txt", "volumes/disk.img", f"volumes/{part}.qcow2.part"}
    assert len(local.found()) == 3
    id = new()
    local.set_aside(id, "stranger", "volumes/disk.img")
    assert not (path / "volumes" / "disk.img").exists()
    local.put_back(id)
    assert (path / "volumes" / "disk.img").read_text() == "x"


def test_nothing_outside_of_the_storage_is_ever_set_aside(local: LocalStorage, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_text("x")
    for name in (str(outside), "../precious", "volumes/../../precious"):
        with pytest.raises(Rejected):
            local.set_aside(new(), "stranger", name)
    assert outside.read_text() == "x"


def test_a_volume_that_qemu_has_open_stays(local: LocalStorage, path: Path) -> None:
    name = new()
    local.create_volume(name, size_bytes=MIB, image=None)
    with (path / "volumes" / f"{name}.qcow2").open("r+b") as held:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(Rejected) as caught:
            local.set_aside(new(), "volume", name)
        assert caught.value.code == "in_use"
    local.set_aside(new(), "volume", name)
    assert local.volumes() == []


def test_the_quarantine_is_not_counted_as_held(local: LocalStorage, image: bytes, path: Path) -> None:
    (path / "volumes" / "big.img").write_bytes(b"x" * MIB)
    before = local.capacity().held_bytes
    local.set_aside(new(), "stranger", "volumes/big.img")
    assert local.capacity().held_bytes <= before - MIB
