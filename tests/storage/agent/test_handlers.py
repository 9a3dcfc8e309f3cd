"""The agent's side of storage on real files: downloads from a real server, transfers through a real stream door."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.agent import stream_client
from cloud.agent.config import AgentConfig
from cloud.agent.door import Door
from cloud.agent.registry import SECTIONS, Call, Machine, Unlinked
from cloud.common import tickets
from cloud.common.driver import Aborted, Rejected, Transient
from cloud.common.wire import Message
from storage.agent import handlers, pull
from storage.drivers import line
from storage.messages import (
    CacheImages,
    CapacityReport,
    CreateVolumes,
    DeleteImage,
    DeleteVolumes,
    DownloadImage,
    ForgetPartialImages,
    ImageOrigin,
    ImageReport,
    NewVolume,
    OldVolume,
    PartialImage,
    StoragePlace,
    WantedStorage,
)
from tests.cloud.agent.conftest import enrol
from tests.storage import web_server
from tests.storage.doubles import disk
from tests.storage.web_server import Server

MIB = 1 << 20
Origin = Callable[..., ImageOrigin]


@pytest.fixture
def server() -> Iterator[Server]:
    with web_server.serving() as found:
        yield found


@pytest.fixture
def host(pki_dir: Path, tmp_path: Path) -> Machine:
    """A machine with real storages, and a real client of other machines' doors."""
    config = enrol(pki_dir, tmp_path / "host-etc", str(uuid.uuid4()), hypervisor="libvirt")
    machine = Machine(config.uuid, "host", config, tmp_path / "host-state")
    link: Any = machine.link
    link.open_stream = lambda address, port, ticket: stream_client.connect(config, address, port, ticket)
    return machine


@pytest.fixture
def image_server(pki_dir: Path, tmp_path: Path) -> Machine:
    config: AgentConfig = enrol(pki_dir, tmp_path / "server-etc", str(uuid.uuid4()), hypervisor="libvirt")
    return Machine(config.uuid, "image_server", config, tmp_path / "server-state")


@pytest.fixture
def store(tmp_path: Path) -> StoragePlace:
    return StoragePlace(str(uuid.uuid4()), "imagestore", str(tmp_path / "srv-images"))


@pytest.fixture
def primary(tmp_path: Path) -> StoragePlace:
    return StoragePlace(str(uuid.uuid4()), "local", str(tmp_path / "srv-primary"))


@pytest.fixture
def door(image_server: Machine, journal: Any, monkeypatch: Any) -> Iterator[Door]:
    opened = Door(image_server, journal, time.time)
    opened.start()
    yield opened
    opened.stop()


def call(machine: Machine) -> Call:
    return Call("key", "job", "resource", machine)


def over_the_wire(message: Message) -> Any:
    """The message as it arrives."""
    return type(message).from_document(json.loads(json.dumps(message.to_document())))


def download(url: str, store: StoragePlace, image: str, **more: Any) -> DownloadImage:
    fields: dict[str, Any] = {"media": "root_template", "max_bytes": 64 * MIB, "reserve_bytes": 0, "refused": []}
    made: DownloadImage = over_the_wire(DownloadImage(image=image, storage=store, url=url, **{**fields, **more}))
    return made


def test_downloaded_and_deleted(server: Server, image_server: Machine, store: StoragePlace, tmp_path: Path) -> None:
    data, image = disk(tmp_path), str(uuid.uuid4())
    server.pages["/i.qcow2"] = web_server.chunked(data)
    url = f"http://127.0.0.1:{server.port}/i.qcow2"
    report = handlers.download_image(download(url, store, image), call(image_server))
    assert ImageReport.from_document(report.to_document()) == report
    assert (report.format, report.size_bytes, report.actual_size_bytes) == ("qcow2", MIB, len(data))
    kept = Path(store.path, "images", image, "image.qcow2")
    assert kept.read_bytes() == data
    last = image_server.link.progress[-1][1]  # type: ignore[attr-defined]
    assert last["bytes_done"] == len(data)
    handlers.delete_image(over_the_wire(DeleteImage(image, store)), call(image_server))
    assert not kept.parent.exists()


def test_refused_where_control_says(server: Server, image_server: Machine, store: StoragePlace) -> None:
    message = download(f"http://127.0.0.1:{server.port}/", store, str(uuid.uuid4()), refused=["127.0.0.0/8"])
    with pytest.raises(Rejected) as refused:
        handlers.download_image(message, call(image_server))
    assert refused.value.code == "address_refused"
    assert server.seen == []


def test_an_endless_answer_is_cut_at_the_limit(server: Server, image_server: Machine, store: StoragePlace) -> None:
    server.pages["/endless"] = web_server.chunked(bytes(4 * MIB))
    message = download(f"http://127.0.0.1:{server.port}/endless", store, str(uuid.uuid4()), max_bytes=MIB)
    with pytest.raises(Rejected) as refused:
        handlers.download_image(message, call(image_server))
    assert refused.value.code == "image_too_large"


def test_cancelled_by_control(server: Server, image_server: Machine, store: StoragePlace) -> None:
    server.pages["/i"] = web_server.file(bytes(MIB))
    image_server.link.aborted.add("key")  # type: ignore[attr-defined]
    with pytest.raises(Aborted):
        handlers.download_image(
            download(f"http://127.0.0.1:{server.port}/i", store, str(uuid.uuid4())), call(image_server)
        )
    assert list(Path(store.path, "images").iterdir()) == []


def test_cancelled_while_the_server_is_silent(
    server: Server, image_server: Machine, store: StoragePlace, monkeypatch: Any
) -> None:
    monkeypatch.setattr(line, "LOOK_S", 0.02)

    def silent(handler: Any) -> None:
        image_server.link.aborted.add("key")  # type: ignore[attr-defined]
        handler.connection.recv(1)  # until the other end goes

    server.pages["/i"] = silent
    message = download(f"http://127.0.0.1:{server.port}/i", store, str(uuid.uuid4()))
    began = time.monotonic()
    with pytest.raises(Aborted):
        handlers.download_image(message, call(image_server))
    assert time.monotonic() - began < 5
    assert list(Path(store.path, "images").iterdir()) == []


def test_killed_in_the_middle_and_asked_again(
    server: Server, image_server: Machine, store: StoragePlace, tmp_path: Path
) -> None:
    """kill -9 of the process that downloads: the same command, sent again, starts cleanly and ends well."""
    data, image, turns = disk(tmp_path, "qcow2", "1M"), str(uuid.uuid4()), []

    def slow_then_whole(handler: Any) -> None:
        turns.append(1)
        if len(turns) > 1:
            return web_server.file(data)(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100_000])
        handler.wfile.flush()
        handler.connection.recv(1)  # until the other end dies
        return None

    server.pages["/i"] = slow_then_whole
    message = download(f"http://127.0.0.1:{server.port}/i", store, image)
    script = """
import json, sys
from pathlib import Path
from cloud.agent.config import AgentConfig
from cloud.agent.registry import SECTIONS, Call, Machine, Unlinked
from storage.agent import handlers
from storage.messages import DownloadImage
machine = Machine("a", "image_server", AgentConfig(uuid="a"), Path("/nonexistent"))
handlers.download_image(DownloadImage.from_document(json.load(sys.stdin)), Call("key", "job", "resource", machine))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert process.stdin is not None
    process.stdin.write(json.dumps(message.to_document()).encode())
    process.stdin.close()
    part = Path(store.path, "images", image, "image.source")
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.exists()
    report = handlers.download_image(message, call(image_server))
    assert report.source_sha256 == hashlib.sha256(data).hexdigest()
    assert sorted(file.name for file in part.parent.iterdir()) == ["image.json", "image.qcow2"]


class TestPull:
    @pytest.fixture
    def image(self, server: Server, image_server: Machine, store: StoragePlace, tmp_path: Path) -> ImageReport:
        server.pages["/i"] = web_server.file(disk(tmp_path, "raw", "3M"))
        message = download(f"http://127.0.0.1:{server.port}/i", store, str(uuid.uuid4()))
        return handlers.download_image(message, call(image_server))

    @pytest.fixture
    def origin(
        self,
        image: ImageReport,
        image_server: Machine,
        door: Door,
        store: StoragePlace,
        primary: StoragePlace,
        pki_dir: Path,
    ) -> Origin:
        key = tickets.load_signing_key(pki_dir / "ticket.key")

        def make(named: str = image.image, sha256: str = image.content_sha256, **params: Any) -> ImageOrigin:
            params = {"storage": vars(store), "image": named, **params}
            ticket = tickets.sign(key, agent=image_server.uuid, verb=pull.VERB, resource=named, params=params)
            return ImageOrigin(image.image, primary, image.actual_size_bytes, sha256, "127.0.0.1", door.port, ticket)

        return make

    def test_a_volume_on_a_pulled_image(
        self, host: Machine, origin: Origin, primary: StoragePlace, image: ImageReport
    ) -> None:
        cached = handlers.cache_images(over_the_wire(CacheImages([origin()])), call(host))
        assert [one.image for one in cached.images] == [image.image]
        copy = Path(primary.path, "cache", f"{image.image}.qcow2")
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == image.content_sha256
        volume, empty = str(uuid.uuid4()), str(uuid.uuid4())
        wanted = [NewVolume(volume, primary, 5 * MIB, image.image), NewVolume(empty, primary, MIB)]
        for _time in range(2):
            handlers.create_volumes(over_the_wire(CreateVolumes(wanted)), call(host))
        assert Path(primary.path, "volumes", f"{volume}.qcow2").exists()
        gone = [OldVolume(volume, primary), OldVolume(empty, primary)]
        for _time in range(2):
            handlers.delete_volumes(over_the_wire(DeleteVolumes(gone)), call(host))
        assert list(Path(primary.path, "volumes").iterdir()) == list(Path(primary.path, "trash").iterdir()) == []

    def test_a_ticket_that_was_used_is_made_anew_by_another_attempt(
        self, host: Machine, origin: Origin, primary: StoragePlace, image: ImageReport
    ) -> None:
        once = origin()
        handlers.cache_images(CacheImages([once]), call(host))
        Path(primary.path, "cache", f"{image.image}.qcow2").unlink()
        with pytest.raises(Transient) as used:
            handlers.cache_images(CacheImages([once]), call(host))
        assert used.value.code == "ticket_used"

    def test_bytes_other_than_expected(self, host: Machine, origin: Origin, primary: StoragePlace) -> None:
        with pytest.raises(Rejected) as refused:
            handlers.cache_images(CacheImages([origin(sha256="0" * 64)]), call(host))
        assert refused.value.code == "checksum_mismatch"
        assert not list(Path(primary.path, "cache").glob("*.qcow2*[!k]"))

    def test_what_the_server_does_not_have_or_must_not_give(self, host: Machine, origin: Origin) -> None:
        for wrong, code in (
            (origin(str(uuid.uuid4())), "image_absent"),
            (origin("../../etc/passwd"), "bad_uuid"),
            (origin(storage={"uuid": "x", "kind": "imagestore", "path": "/srv/../etc"}), "bad_path"),
            (origin(storage={}), "ticket_malformed"),
        ):
            with pytest.raises(Rejected) as refused:
                handlers.cache_images(CacheImages([wrong]), call(host))
            assert refused.value.code == code

    def test_an_interrupted_pull_is_forgotten(self, host: Machine, primary: StoragePlace) -> None:
        image = str(uuid.uuid4())
        part = Path(primary.path, "cache", f"{image}.qcow2.part")
        part.parent.mkdir(parents=True)
        part.write_bytes(b"half")
        handlers.forget_partial_images(over_the_wire(ForgetPartialImages([PartialImage(image, primary)])), call(host))
        assert not part.exists()


def test_the_section_makes_tells_and_evicts(host: Machine, primary: StoragePlace, store: StoragePlace) -> None:
    image = str(uuid.uuid4())
    wanted = [WantedStorage(**vars(primary)), WantedStorage(**vars(store))]
    body = {"storages": [vars(one) for one in wanted]}
    handlers.converge(body, host)
    copy = Path(primary.path, "cache", f"{image}.qcow2")
    copy.write_bytes(b"x")
    handlers.converge(body, host)
    reports = [CapacityReport.from_document(body).storages for _topic, body in host.link.published]  # type: ignore[attr-defined]
    assert [one.uuid for one in reports[0]] == [primary.uuid, store.uuid]
    assert reports[1][0].cached == [image]
    assert reports[1][0].total_bytes >= reports[1][0].available_bytes > 0
    assert host.resources["platform_paths"] == {Path(primary.path), Path(store.path)}
    handlers.converge({"storages": [{**vars(wanted[0]), "evict": [image]}]}, host)
    assert not copy.exists()


def test_an_image_that_cannot_leave_is_no_failure_of_its_storage(
    host: Machine, primary: StoragePlace, tmp_path: Path
) -> None:
    image, volume = str(uuid.uuid4()), str(uuid.uuid4())
    copy = Path(primary.path, "cache", f"{image}.qcow2")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(disk(tmp_path))
    handlers.create_volumes(CreateVolumes([NewVolume(volume, primary, MIB, image)]), call(host))
    with pytest.raises(Rejected) as refused:
        handlers.converge({"storages": [vars(WantedStorage(**vars(primary), evict=[image]))]}, host)
    assert refused.value.code == "image_in_use"
    _topic, body = host.link.published[-1]  # type: ignore[attr-defined]
    (told,) = CapacityReport.from_document(body).storages
    assert (told.failure, told.cached) == ("", [image])
    assert told.total_bytes > 0


def test_one_storage_that_fails_does_not_stop_the_others(host: Machine, primary: StoragePlace, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    bad = WantedStorage(str(uuid.uuid4()), "local", str(taken))
    with pytest.raises(Rejected):
        handlers.converge({"storages": [vars(bad), vars(WantedStorage(**vars(primary)))]}, host)
    _topic, body = host.link.published[-1]  # type: ignore[attr-defined]
    failed, good = CapacityReport.from_document(body).storages
    assert "taken" in failed.failure
    assert not good.failure
    assert Path(primary.path, "volumes").is_dir()


def test_a_kind_that_this_agent_does_not_know(host: Machine) -> None:
    with pytest.raises(Exception, match="ceph"):
        handlers.converge({"storages": [{"uuid": "x", "kind": "ceph", "path": "/srv/x"}]}, host)


def test_a_pull_from_a_server_that_fell_silent_is_aborted(
    host: Machine, primary: StoragePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes any more, and nothing breaks off: the abort token is looked at all the same, and nothing stays."""
    monkeypatch.setattr(pull, "LOOK_S", 0.01)
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"size_bytes": 1000000}\n' + b"x" * 10)
    monkeypatch.setattr(Machine, "open_stream", lambda self, address, port, ticket: ours)
    image, work = str(uuid.uuid4()), call(host)
    host.link.aborted.add(work.key)  # type: ignore[attr-defined]
    origin = ImageOrigin(image, primary, 1000000, "0" * 64, "203.0.113.1", 7443, "ticket")
    with pytest.raises(Aborted):
        handlers.cache_images(CacheImages([origin]), work)
    theirs.close()
    assert not list(Path(primary.path, "cache").glob("*.qcow2*[!k]"))


def test_a_server_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "LOOK_S", 0.01)
    monkeypatch.setattr(pull, "SILENCE_S", 0.05)
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"size_bytes": 1000000}\n')
    with ours, theirs, pytest.raises(Transient) as silent:
        assert not any(pull.StreamBody(ours).chunks())
    assert silent.value.code == "stream_silent"


def test_what_has_not_changed_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link = Unlinked()
    machine = Machine("a", "host", AgentConfig("a", hypervisor="fake"), tmp_path, link, disk={})
    body = {"storages": [{"uuid": str(uuid.uuid4()), "kind": "local", "path": "/srv/told"}]}
    for _ in range(3):
        SECTIONS["storages"](body, machine)
    assert len(link.published) == 1
    SECTIONS["storages"]({"storages": [{**body["storages"][0], "evict": []}]}, machine)
    assert len(link.published) == 2
    monkeypatch.setattr(handlers, "TELL_AGAIN_S", 0.0)
    SECTIONS["storages"]({"storages": [{**body["storages"][0], "evict": []}]}, machine)
    assert len(link.published) == 3
