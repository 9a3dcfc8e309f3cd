"""Servers that would keep a download busy for ever: it ends by itself, and at once when control cancels it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from cloud.common.driver import Aborted, Transient
from storage.drivers import line, web
from storage.drivers.guard import Guard
from tests.storage import web_server
from tests.storage.doubles import Watcher
from tests.storage.web_server import Answer, Server, dripping

GUARD = Guard([], lambda host, port: [host])
SOON_S = 5.0
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with web_server.serving() as found:
        yield found


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "LOOK_S", 0.02)


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A listening socket whose queue takes a few, and which nobody reads."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen(0)
        yield found


@contextmanager
def filled(listening: socket.socket) -> Iterator[None]:
    """The queue of a listening socket is full: further connections get no answer."""
    with ExitStack() as made:
        for _turn in range(4):
            one = made.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield


def read(url: str, guard: Guard = GUARD, watch: Watcher | None = None) -> int:
    with web.fetch(url, guard, watch or Watcher()) as body:
        return sum(map(len, body.chunks()))


def ending(code: str, url: str, guard: Guard = GUARD) -> None:
    began = time.monotonic()
    with pytest.raises(Transient) as ended:
        read(url, guard)
    assert ended.value.code == code
    assert time.monotonic() - began < SOON_S


OPENINGS: dict[str, Answer] = {
    "says nothing": dripping(b""),
    "endless interim answers": dripping(b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0),
    "a byte of status now and then": dripping(b"H"),
    "a byte of a header now and then": dripping(b"x", OK + b"X: "),
    "a header now and then": dripping(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
}

BODIES: dict[str, Answer] = {
    "a byte now and then": dripping(b"x", OK + b"Content-Length: 1000000000\r\n\r\n"),
    "a chunk now and then": dripping(b"1\r\nx\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "a chunk's size now and then": dripping(b"0", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "endless trailers": dripping(b"X: y\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", 0),
    "nothing": dripping(b"", OK + b"Content-Length: 1000000000\r\n\r\n"),
}


@pytest.mark.parametrize("page", OPENINGS.values(), ids=OPENINGS.keys())
def test_getting_to_the_file_has_one_deadline(server: Server, page: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "OPENING_S", 0.3)
    server.pages["/a"] = page
    ending("server_too_slow", f"http://127.0.0.1:{server.port}/a")


def test_redirects_share_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "OPENING_S", 0.5)
    pause = threading.Event()

    def slowly(to: str) -> Answer:
        return lambda handler: (pause.wait(0.2), web_server.redirect(to)(handler))[1]

    for turn in range(4):
        server.pages[f"/{turn}"] = slowly(f"/{turn + 1}")
    ending("server_too_slow", f"http://127.0.0.1:{server.port}/0")


def test_a_handshake_that_does_not_come(deaf: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "OPENING_S", 0.3)
    ending("server_too_slow", f"https://127.0.0.1:{deaf.getsockname()[1]}/a")


def test_a_connection_that_does_not_come(deaf: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "CONNECT_S", 0.2)
    with filled(deaf):
        ending("server_unreachable", f"http://127.0.0.1:{deaf.getsockname()[1]}/a")


def test_silence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "SILENCE_S", 0.2)
    for page in (OPENINGS["says nothing"], BODIES["nothing"]):
        server.pages["/a"] = page
        ending("server_silent", f"http://127.0.0.1:{server.port}/a")


@pytest.mark.parametrize("page", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_hardly_comes(server: Server, page: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "PIECE_S", 0.3)
    server.pages["/a"] = page
    ending("server_too_slow", f"http://127.0.0.1:{server.port}/a")


def test_a_slow_body_that_keeps_coming_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It outlasts the opening's deadline and several pieces' time; what its reader takes is not held against it."""
    monkeypatch.setattr(line, "OPENING_S", 0.3)
    monkeypatch.setattr(line, "PIECE_S", 0.3)
    monkeypatch.setattr(line, "PIECE_BYTES", 1000)
    pause = threading.Event()

    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(OK + b"Content-Length: 10000\r\n\r\n")
        for _turn in range(10):
            pause.wait(0.06)
            handler.wfile.write(bytes(1000))

    server.pages["/a"] = page
    with web.fetch(f"http://127.0.0.1:{server.port}/a", GUARD, Watcher()) as body:
        chunks = body.chunks()
        got = len(next(chunks))
        pause.wait(0.4)
        assert got + sum(map(len, chunks)) == 10_000


class Cancelled(Watcher):
    """Aborts some looks after it was told that the phase in question began."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()

    def check_aborted(self) -> None:
        if self.has_begun.is_set() and self._left is None:
            self._left = 3
        super().check_aborted()


def expect_aborted(url: str, watch: Watcher, guard: Guard = GUARD) -> None:
    began = time.monotonic()
    with pytest.raises(Aborted):
        read(url, guard, watch)
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    "page", [*OPENINGS.values(), *BODIES.values()], ids=[*OPENINGS, *(f"body: {name}" for name in BODIES)]
)
def test_cancelled_while_the_server_has_its_way(server: Server, page: Answer) -> None:
    watch = Cancelled()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        watch.has_begun.set()
        page(handler)

    server.pages["/a"] = answer
    expect_aborted(f"http://127.0.0.1:{server.port}/a", watch)


def test_cancelled_during_the_handshake(deaf: socket.socket) -> None:
    expect_aborted(f"https://127.0.0.1:{deaf.getsockname()[1]}/a", Watcher(abort_after=10))


def test_cancelled_while_connecting(deaf: socket.socket) -> None:
    with filled(deaf):
        expect_aborted(f"http://127.0.0.1:{deaf.getsockname()[1]}/a", Watcher(abort_after=10))


def test_cancelled_during_the_name_lookup() -> None:
    watch, gate = Cancelled(), threading.Event()

    def lookup(host: str, port: int) -> list[str]:
        watch.has_begun.set()
        gate.wait(SOON_S * 2)
        return ["127.0.0.1"]

    expect_aborted("http://images.example/a", watch, Guard([], lookup))
    gate.set()
