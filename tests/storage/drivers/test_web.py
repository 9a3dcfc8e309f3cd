"""Fetching by http from a real server on loopback, which these tests' guard lets through and the others' does not."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.common.driver import Rejected, Transient
from storage.drivers import web
from storage.drivers.guard import Guard
from tests.storage import web_server
from tests.storage.doubles import Watcher
from tests.storage.web_server import Server

DATA = bytes(range(256)) * 4096
INSIDE = "127.0.0.2/32"


@pytest.fixture
def server() -> Iterator[Server]:
    with web_server.serving() as found:
        yield found


def names(**addresses: str) -> Guard:
    """A guard that knows these names, and that refuses 127.0.0.2 as if it were the only inside."""
    return Guard([INSIDE], lambda host, port: [addresses.get(host.replace(".", "_").replace("-", "_"), host)])


def read(url: str, guard: Guard, tls: ssl.SSLContext | None = None, watch: Watcher | None = None) -> bytes:
    with web.fetch(url, guard, watch or Watcher(), tls) as body:
        return b"".join(body.chunks())


def test_a_file(server: Server) -> None:
    server.pages["/a"] = web_server.file(DATA)
    with web.fetch(f"http://images.example:{server.port}/a?x=1", names(images_example="127.0.0.1"), Watcher()) as body:
        assert body.size_bytes == len(DATA)
        assert b"".join(body.chunks()) == DATA
    assert server.seen == [("/a?x=1", f"images.example:{server.port}")]


def test_a_file_without_length(server: Server) -> None:
    server.pages["/a"] = web_server.chunked(DATA)
    with web.fetch(f"http://127.0.0.1:{server.port}/a", names(), Watcher()) as body:
        assert body.size_bytes is None
        assert b"".join(body.chunks()) == DATA


def test_redirects_are_followed(server: Server) -> None:
    server.pages["/a"] = web_server.redirect("/b", 301)
    server.pages["/b"] = web_server.redirect(f"http://mirror.example:{server.port}/c", 307)
    server.pages["/c"] = web_server.file(DATA)
    assert read(f"http://127.0.0.1:{server.port}/a", names(mirror_example="127.0.0.1")) == DATA
    assert server.seen[-1] == ("/c", f"mirror.example:{server.port}")


def test_five_redirects_and_no_more(server: Server) -> None:
    for turn in range(6):
        server.pages[f"/{turn}"] = web_server.redirect(f"/{turn + 1}")
    server.pages["/6"] = web_server.file(DATA)
    assert read(f"http://127.0.0.1:{server.port}/1", names()) == DATA
    with pytest.raises(Rejected) as refused:
        read(f"http://127.0.0.1:{server.port}/0", names())
    assert refused.value.code == "too_many_redirects"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/x",
        "http://inside.example/x",
        "//127.0.0.2/x",
        "http://[::ffff:127.0.0.2]/x",
        "http://2130706434/",
    ],
)
def test_a_redirect_to_the_inside_is_refused(server: Server, target: str) -> None:
    server.pages["/a"] = web_server.redirect(target)
    guard = Guard([INSIDE], lambda host, port: ["127.0.0.2"] if host in ("inside.example", "2130706434") else [host])
    with pytest.raises(Rejected) as refused:
        read(f"http://127.0.0.1:{server.port}/a", guard)
    assert refused.value.code == "address_refused"


def test_a_name_that_changes_its_address_gains_nothing(server: Server) -> None:
    """The address that was checked is connected to: the name is resolved once for each connection."""
    server.pages["/a"] = web_server.file(DATA)
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    guard = Guard([INSIDE], rebinding)
    assert read(f"http://images.example:{server.port}/a", guard) == DATA
    assert asked == ["images.example"]
    with pytest.raises(Rejected):
        read(f"http://images.example:{server.port}/a", guard)


def test_a_name_that_changes_between_redirects_is_refused(server: Server) -> None:
    server.pages["/a"] = web_server.redirect("/b")
    server.pages["/b"] = web_server.file(DATA)
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    with pytest.raises(Rejected) as refused:
        read(f"http://images.example:{server.port}/a", Guard([INSIDE], lambda host, port: next(answers)))
    assert refused.value.code == "address_refused"
    assert [path for path, _host in server.seen] == ["/a"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
        "http:///x",
        "127.0.0.1/x",
        "http://user:secret@127.0.0.1/x",
        "http://127.0.0.1:0/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nX-Evil: 1",
        "http://[::1/x",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        read(url, names())
    assert refused.value.code == "url_refused"


def test_what_the_server_says(server: Server) -> None:
    server.pages["/busy"] = web_server.status(503)
    server.pages["/gone"] = web_server.status(410)
    server.pages["/zip"] = web_server.file(b"x", Content_Encoding="gzip")
    server.pages["/maze"] = web_server.redirect("http://[::1/")
    for path, kind, code in (
        ("/none", Rejected, "http_status"),
        ("/gone", Rejected, "http_status"),
        ("/busy", Transient, "http_status"),
        ("/zip", Rejected, "content_encoded"),
        ("/maze", Rejected, "url_refused"),
    ):
        with pytest.raises(kind) as refused:
            read(f"http://127.0.0.1:{server.port}{path}", names())
        assert refused.value.code == code


@pytest.mark.parametrize("line", [b"HTTP/1.1 404 a\0b\x1b[2Jc\x85" + b"d" * 60_000, b"\0\x1b[2J" + b"d" * 60_000])
def test_a_status_line_made_to_hurt_whoever_reads_it(server: Server, line: bytes) -> None:
    server.pages["/a"] = web_server.raw(line + b"\r\n\r\n")
    with pytest.raises((Rejected, Transient)) as refused:
        read(f"http://127.0.0.1:{server.port}/a", names())
    assert refused.value.detail.isprintable()
    assert len(refused.value.detail) < 400


def test_a_connection_that_breaks_off(server: Server) -> None:
    server.pages["/a"] = web_server.cut(DATA[:1000], 5000)
    with pytest.raises(Transient) as broken:
        read(f"http://127.0.0.1:{server.port}/a", names())
    assert broken.value.code == "connection_broken"


def test_nobody_there() -> None:
    with web_server.serving() as server:
        port = server.port
    with pytest.raises(Transient) as silent:
        read(f"http://127.0.0.1:{port}/a", names())
    assert silent.value.code == "server_unreachable"


class TestTls:
    @pytest.fixture
    def pki(self, tmp_path: Path) -> Path:
        from cloud.common import pki

        pki.init(tmp_path)
        pki.issue(tmp_path, "images", dns=["images.example"], addresses=[], out=tmp_path / "server")
        return tmp_path

    @pytest.fixture
    def secure(self, pki: Path) -> Iterator[Server]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.pem", pki / "server.key")
        with web_server.serving(context) as found:
            found.pages["/a"] = web_server.file(DATA)
            yield found

    def test_the_certificate_is_checked_for_the_name(self, pki: Path, secure: Server) -> None:
        trusting = ssl.create_default_context(cafile=pki / "ca.pem")
        guard = names(images_example="127.0.0.1", other_example="127.0.0.1")
        assert read(f"https://images.example:{secure.port}/a", guard, trusting) == DATA
        with pytest.raises(Rejected) as refused:
            read(f"https://other.example:{secure.port}/a", guard, trusting)
        assert refused.value.code == "certificate_refused"
        with pytest.raises(Rejected) as refused:
            read(f"https://images.example:{secure.port}/a", guard)
        assert refused.value.code == "certificate_refused"

    def test_from_https_to_http_is_refused(self, pki: Path, secure: Server) -> None:
        secure.pages["/a"] = web_server.redirect("http://images.example/b")
        trusting = ssl.create_default_context(cafile=pki / "ca.pem")
        with pytest.raises(Rejected) as refused:
            read(f"https://images.example:{secure.port}/a", names(images_example="127.0.0.1"), trusting)
        assert refused.value.code == "url_refused"
