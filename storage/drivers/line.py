"""A connection to a server that nobody vouches for: whatever it does or leaves undone, its user is free within seconds.

Nothing here blocks for longer than a second: then the abort token is looked at, and whether there is any patience left.
"""

import io
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cloud.common.driver import Transient
from storage.drivers.base import Watch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOOK_S = 1.0
CONNECT_S = 10.0
SILENCE_S = 30.0
# From the first name lookup to the last redirect's headers.
OPENING_S = 60.0
# A body has to bring this much, again and again, within that much waiting for it: 1 KiB a second on average.
PIECE_BYTES = 60 << 10
PIECE_S = 60.0

T = TypeVar("T")


class Patience:
    """How long one download may keep its user waiting, redirects included; it begins when it is made."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._ends_at = time.monotonic() + OPENING_S
        self._why = f"The server did not get to the file within {OPENING_S:.0f} s."
        self._piece_bytes, self._waited_s, self._reading_since = 0, 0.0, 0.0

    def look(self) -> float:
        """For how many seconds one may wait before the next look.

        Raises Aborted when the work is cancelled, Transient `server_too_slow` when the server has had its time.
        """
        self._watch.check_aborted()
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise Transient("server_too_slow", self._why)
        return min(LOOK_S, left)

    def resume(self) -> None:
        """Bytes of the body are waited for from here on, until `pause`."""
        self._reading_since = time.monotonic()
        self._ends_at = self._reading_since + PIECE_S - self._waited_s
        self._why = f"The server sent less than {PIECE_BYTES} bytes in {PIECE_S:.0f} s."

    def pause(self, came_bytes: int) -> None:
        """So many came; the time until the next `resume` is not the server's."""
        self._waited_s += time.monotonic() - self._reading_since
        self._piece_bytes += came_bytes
        if self._piece_bytes >= PIECE_BYTES:
            self._piece_bytes, self._waited_s = 0, 0.0


class Line:
    """A TCP connection, with TLS after `secure`; `http.client` uses it as its socket. Not thread-safe.

    Reading and writing raise what `Patience.look` raises, TimeoutError after half a minute of silence, OSError.
    """

    def __init__(self, addresses: Iterable[str], port: int, patience: Patience) -> None:
        """Connect to the first address that answers. Raises OSError when none does."""
        self._patience = patience
        last: OSError = ConnectionError("it has no address")
        for address in addresses:
            self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                self._socket.setblocking(False)
                self._connect(address, port)
                return
            except OSError as error:
                self._socket.close()
                last = error
            except BaseException:
                self._socket.close()
                raise
        raise last

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Go on with TLS; the certificate must be for `name`. Raises ssl.SSLError too."""
        secured = context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
        self._socket = secured
        self._until_done(secured.do_handshake, select.POLLIN)

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._until_done(partial(self._socket.send, rest), select.POLLOUT) :]

    def receive_into(self, buffer: "WriteableBuffer") -> int:
        """What is there, or the first that comes; 0 at the end."""
        return self._until_done(partial(self._socket.recv_into, buffer), select.POLLIN)

    def makefile(self, mode: str) -> io.BufferedReader:
        """For reading, as `socket.makefile`; closing it does not close the line."""
        assert mode == "rb"
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        self._socket.close()

    def _connect(self, address: str, port: int) -> None:
        try:
            self._socket.connect((address, port))
        except BlockingIOError:
            self._wait(select.POLLOUT, time.monotonic() + CONNECT_S)
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None

    def _until_done(self, act: Callable[[], T], event: int) -> T:
        """Do it as soon as the socket lets it be done."""
        silent_until = time.monotonic() + SILENCE_S
        while True:
            self._patience.look()
            try:
                return act()
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(event, silent_until)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, silent_until)

    def _wait(self, event: int, until: float) -> None:
        """Until the socket is ready for `event`. Raises TimeoutError at the moment `until`."""
        poll = select.poll()
        poll.register(self._socket, event)
        while True:
            pause = min(self._patience.look(), until - time.monotonic())
            if pause <= 0:
                raise TimeoutError("no answer came")
            if poll.poll(pause * 1000):
                return


class _Incoming(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        return self._line.receive_into(buffer)


def apart(function: Callable[[], T], patience: Patience) -> T:
    """The result of what blocks and cannot be interrupted, as a name lookup; left behind when patience ends."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="lookup", daemon=True).start()
    while not wait([future], patience.look()).done:
        pass
    return future.result()
