"""The contract of image stores on the fake and on files; what only files and the real qemu-img can show."""

import hashlib
import json
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.common.driver import Aborted, NotFound, Rejected, Transient
from storage.drivers.base import ImageOrder, ImageStore, Opener, StoredImage
from storage.drivers.fake import WORLDS, FakeImageStore
from storage.drivers.imagestore import FileImageStore
from tests.storage.doubles import Watcher, broken, disk, qemu_img, sha256, source

GIB = 1 << 30


def order(
    *, media: str = "root_template", form: str = "", checksum: str = "", max_bytes: int = GIB, reserve_bytes: int = 0
) -> ImageOrder:
    return ImageOrder(media, form, checksum, max_bytes, reserve_bytes)


def add(store: ImageStore, opener: Opener, wish: ImageOrder | None = None, name: str = "") -> StoredImage:
    return store.add_image(name or str(uuid.uuid4()), wish or order(), open_source=opener, watch=Watcher())


@pytest.fixture(params=["fake", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    path = str(tmp_path / "images-server")
    driver: ImageStore = FakeImageStore(path) if request.param == "fake" else FileImageStore(path)
    driver.prepare()
    yield driver
    WORLDS.pop(path, None)


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return disk(tmp_path)


def test_added_read_and_deleted(store: ImageStore, image: bytes) -> None:
    name = str(uuid.uuid4())
    kept = add(store, source(image), name=name)
    assert kept.format == "qcow2"
    assert kept.content_sha256 == kept.source_sha256 == sha256(image)
    assert kept.actual_size_bytes == len(image)
    assert store.images() == [name]
    assert store.image(name) == kept
    with store.open_image(name) as file:
        assert file.read() == image
    for _time in range(2):
        store.delete_image(name)
    assert store.images() == []
    with pytest.raises(NotFound):
        store.open_image(name)


def test_added_twice_is_fetched_once(store: ImageStore, image: bytes) -> None:
    name = str(uuid.uuid4())
    first = add(store, source(image), name=name)
    again = add(store, broken(b"", Transient("x", "must not be opened")), name=name)
    assert first == again


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_checksums(store: ImageStore, image: bytes, algorithm: str) -> None:
    right = hashlib.new(algorithm, image).hexdigest()
    add(store, source(image), order(checksum=f"{algorithm}:{right.upper()}"))
    with pytest.raises(Rejected) as refused:
        add(store, source(image), order(checksum=f"{algorithm}:{'0' * len(right)}"))
    assert refused.value.code == "checksum_mismatch"
    assert len(store.images()) == 1


@pytest.mark.parametrize("announced", [-1, None])
def test_too_large_whether_announced_or_not(store: ImageStore, image: bytes, announced: int | None) -> None:
    with pytest.raises(Rejected) as refused:
        add(store, source(image, announced), order(max_bytes=1000))
    assert refused.value.code == "image_too_large"
    assert store.images() == []


def test_the_reserve_stays_free(store: ImageStore, image: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        add(store, source(image), order(reserve_bytes=1 << 60))
    assert refused.value.code == "storage_full"


def test_an_abort_and_a_break_leave_nothing(store: ImageStore, image: bytes) -> None:
    name = str(uuid.uuid4())
    with pytest.raises(Aborted):
        store.add_image(name, order(), open_source=source(image), watch=Watcher(abort_after=0))
    with pytest.raises(Transient):
        add(store, broken(image[:5000], Transient("connection_broken", "gone")), name=name)
    assert store.images() == []
    add(store, source(image), name=name)
    assert store.images() == [name]


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "images-server"

    @pytest.fixture
    def store(self, path: Path) -> FileImageStore:
        driver = FileImageStore(str(path))
        driver.prepare()
        return driver

    def left(self, path: Path) -> list[Path]:
        return [file for file in (path / "images").rglob("*") if file.is_file()]

    def test_a_killed_download_is_cleared(self, store: FileImageStore, path: Path, image: bytes) -> None:
        name = str(uuid.uuid4())
        half = path / "images" / name
        half.mkdir()
        (half / "image.source").write_bytes(image[:100])
        assert add(store, source(image), name=name).actual_size_bytes == len(image)
        other = path / "images" / str(uuid.uuid4())
        other.mkdir()
        (other / "image.source").write_bytes(b"half")
        store.prepare()
        assert store.images() == [name]
        assert not other.exists()
        assert sorted(file.name for file in self.left(path)) == ["image.json", "image.qcow2"]

    @pytest.mark.parametrize("form", ["raw", "vmdk", "vhdx", "vpc"])
    def test_other_formats_become_qcow2(self, store: FileImageStore, tmp_path: Path, form: str) -> None:
        options = ("-o", "subformat=streamOptimized") if form == "vmdk" else ()
        data = disk(tmp_path, form, "4M", *options)
        name = str(uuid.uuid4())
        kept = add(store, source(data), name=name)
        assert (kept.format, kept.source_format) == ("qcow2", form)
        assert kept.size_bytes >= 4 << 20
        assert kept.source_sha256 == sha256(data)
        with store.open_image(name) as file:
            content = file.read()
        assert content.startswith(b"QFI\xfb")
        assert kept.content_sha256 == sha256(content)

    def test_an_iso_stays_as_it_is(self, store: FileImageStore) -> None:
        data = bytearray(64 * 1024)
        data[0x8001:0x8006] = b"CD001"
        kept = add(store, source(bytes(data)), order(media="iso"))
        assert (kept.format, kept.size_bytes) == ("iso", len(data))
        with pytest.raises(Rejected) as refused:
            add(store, source(bytes(data)))
        assert refused.value.code == "format_mismatch"

    def test_a_disk_is_no_iso(self, store: FileImageStore, image: bytes) -> None:
        with pytest.raises(Rejected) as refused:
            add(store, source(image), order(media="iso"))
        assert refused.value.code == "format_mismatch"

    def test_a_format_that_the_file_does_not_have(self, store: FileImageStore, image: bytes) -> None:
        with pytest.raises(Rejected) as refused:
            add(store, source(image), order(form="raw"))
        assert refused.value.code == "format_mismatch"

    def test_a_backing_file_is_refused(self, store: FileImageStore, path: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"s" * 1024 * 1024)
        made = tmp_path / "evil.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, made)
        self.refused(store, made.read_bytes(), "image_refers_outside")
        assert self.left(path) == []

    def test_an_external_data_file_is_refused(self, store: FileImageStore, tmp_path: Path) -> None:
        made = tmp_path / "evil.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", made, "1M")
        self.refused(store, made.read_bytes(), "image_refers_outside")

    def test_an_encrypted_image_is_refused(self, store: FileImageStore, tmp_path: Path) -> None:
        data = bytearray(disk(tmp_path))
        struct.pack_into(">I", data, 32, 2)  # crypt_method LUKS
        self.refused(store, bytes(data), "image_encrypted")

    def test_a_vmdk_that_names_other_files_is_refused(self, store: FileImageStore) -> None:
        text = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'
        self.refused(store, text.ljust(1024, b"\n"), "image_refers_outside")

    def test_a_disk_far_larger_than_its_file_is_refused(self, store: FileImageStore, tmp_path: Path) -> None:
        self.refused(store, disk(tmp_path, "qcow2", "8T"), "image_too_large")

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
            (b"  <html>".ljust(512), "not_an_image"),
            (b"", "not_an_image"),
            (b"x" * 1000, "not_an_image"),
            (b"\x1f\x8b".ljust(512, b"\0"), "image_compressed"),
            (b"\xfd7zXZ\x00".ljust(512, b"\0"), "image_compressed"),
            (b"QFI\xfb" + struct.pack(">I", 9) + bytes(504), "format_unsupported"),
            (b"QFI\xfb", "image_broken"),
            (b"QED\0".ljust(512, b"\0"), "format_unsupported"),
        ],
    )
    def test_what_is_no_usable_image(self, store: FileImageStore, path: Path, data: bytes, code: str) -> None:
        self.refused(store, data, code)
        assert self.left(path) == []

    def test_a_conversion_can_be_aborted(self, store: FileImageStore, path: Path) -> None:
        class Impatient(Watcher):
            def progress(self, done: int, total: int, text: str = "") -> None:
                if text == "converting":
                    self.stop.set()

        with pytest.raises(Aborted):
            store.add_image(str(uuid.uuid4()), order(), open_source=source(bytes(64 << 20)), watch=Impatient())
        assert self.left(path) == []

    def test_what_is_known_is_kept_beside_it(self, store: FileImageStore, path: Path, image: bytes) -> None:
        name = str(uuid.uuid4())
        kept = add(store, source(image), name=name)
        assert json.loads((path / "images" / name / "image.json").read_text()) == vars(kept)

    @pytest.mark.parametrize("name", ["..", "../x", "a/b", ""])
    def test_only_uuids_become_directories(self, store: FileImageStore, name: str) -> None:
        for act in (store.delete_image, store.open_image, store.image):
            with pytest.raises(Rejected):
                act(name)

    def refused(self, store: FileImageStore, data: bytes, code: str) -> None:
        with pytest.raises(Rejected) as refused:
            add(store, source(data))
        assert refused.value.code == code
        assert store.images() == []


def test_an_image_set_aside_comes_back_as_it_was(store: ImageStore, image: bytes) -> None:
    name, id = str(uuid.uuid4()), str(uuid.uuid4())
    kept = add(store, source(image), name=name)
    assert [(each.kind, each.name, each.size_bytes) for each in store.found()] == [("image", name, len(image))]
    for _time in range(2):
        store.set_aside(id, "image", name)
    store.prepare()
    assert store.images() == []
    assert store.found() == []
    assert [(each.id, each.kind, each.name) for each in store.aside()] == [(id, "image", name)]
    store.put_back(id)
    assert store.image(name) == kept
    with store.open_image(name) as file:
        assert file.read() == image
    store.set_aside(id, "image", name)
    store.purge(id)
    assert store.aside() == store.images() == []
    with pytest.raises(NotFound):
        store.put_back(id)
