"""The stream door: one TLS port, both ends with the platform's certificates, one single-use ticket per stream.

The caller sends one JSON line {"ticket": …}; the door answers {"ok": true} or {"ok": false, "code", "detail"}; from
there on the verb's raw bytes go both ways.
"""

import asyncio
import ipaddress
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

from cloud.agent import certificate, wording
from cloud.agent.journal import Journal
from cloud.agent.registry import STREAMS, Machine
from cloud.common import tls
from cloud.common.driver import DriverError
from cloud.common.tickets import Ticket, TicketError, load_public_key, verify

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
STREAMS_AT_ONCE = 512
BUFFER_BYTES = 256 * 1024

Greet = Callable[[], None]


class _Reader(asyncio.StreamReader):
    """Says that the door is open at the first read of a verb: until then a driver's error can still refuse."""

    greet: Greet | None = None

    def _open(self) -> None:
        if self.greet is not None:
            greet, self.greet = self.greet, None
            greet()

    async def read(self, n: int = -1) -> bytes:
        self._open()
        return await super().read(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # type: ignore[override]
        self._open()
        return await super().readuntil(separator)

    async def readexactly(self, n: int) -> bytes:
        self._open()
        return await super().readexactly(n)


class _Writer(asyncio.StreamWriter):
    """Says that the door is open before the first byte of a verb."""

    greet: Greet | None = None

    def _open(self) -> None:
        if self.greet is not None:
            greet, self.greet = self.greet, None
            greet()

    def write(self, data: Any) -> None:
        self._open()
        super().write(data)

    def writelines(self, data: Iterable[Any]) -> None:
        self._open()
        super().writelines(data)


class Door:
    """Serves the registered stream verbs on the machine's address, in an event loop of its own thread."""

    def __init__(self, machine: Machine, journal: Journal, now: Callable[[], float]) -> None:
        self._machine, self._journal, self._now = machine, journal, now
        self._key = load_public_key(machine.config.ticket_key)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self.port = machine.config.stream_port

    def start(self) -> None:
        """Open the door. Raises OSError when the address or port cannot be had, or the certificate cannot be read."""
        config = self._machine.config
        context = tls.server_context(config.ca, config.certificate, config.key)
        if (own := self._machine.resources.get(certificate.RESOURCE)) is not None:
            # Streams that are open go on; whoever comes next is shown the new one.
            own.on_installed(lambda: context.load_cert_chain(config.certificate, config.key))
        self._loop.run_until_complete(self._listen(context))
        self._begin()
        log.info("stream door on %s port %d", config.address or "all addresses", self.port)

    def let_in(self, stream: socket.socket) -> None:
        """Serve a stream that comes from this very process, where many agents live in one: no port, no TLS."""
        self._begin()
        stream.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._loop.connect_accepted_socket(self._protocol, stream), self._loop)

    def stop(self) -> None:
        """Close the door and every stream."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)
            self._thread.start()

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader(limit=BUFFER_BYTES, loop=self._loop)
        return asyncio.StreamReaderProtocol(reader, self._admit, loop=self._loop)

    async def _listen(self, context: ssl.SSLContext) -> None:
        self._server = await self._loop.create_server(
            self._protocol,
            _own_address(self._machine.config.address),
            self.port,
            ssl=context,
            ssl_handshake_timeout=PATIENCE_S,
            backlog=128,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    def _admit(self, reader: asyncio.StreamReader, plain: asyncio.StreamWriter) -> None:
        transport = plain.transport
        writer = _Writer(transport, transport.get_protocol(), reader, self._loop)  # type: ignore[arg-type]
        task = self._loop.create_task(self._serve(reader, writer))
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: _Writer) -> None:
        ticket: Ticket | None = None
        try:
            if len(self._streams) > STREAMS_AT_ONCE:
                raise TicketError("door_busy", "Too many streams are open on this machine.")
            # Only a stream of this very process (`let_in`) comes without TLS.
            if (connection := writer.get_extra_info("ssl_object")) is not None:
                self._machine.peers.expect_welcome(connection)
            ticket = self._check(await _first_line(reader))
            await self._run(ticket, reader, writer)
        except (TicketError, DriverError) as error:
            log.warning("stream refused: %s: %s", error.code, error.detail)
            self._refuse(writer, error.code, error.detail)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError) as error:
            log.info("stream %s broke off: %r", ticket.verb if ticket else "without a ticket", error)
        except Exception:
            log.exception("stream %s failed", ticket.verb if ticket else "without a ticket")
            self._refuse(writer, "internal_error", "The stream failed; the agent's log says why.")
        finally:
            await self._hang_up(writer)

    async def _run(self, ticket: Ticket, reader: asyncio.StreamReader, writer: _Writer) -> None:
        handler = STREAMS.get(ticket.verb)
        if handler is None:
            raise TicketError("unknown_verb", f"This agent does not know {ticket.verb}; upgrade it.")
        said = False

        def greet() -> None:
            nonlocal said
            if not said:
                said = True
                self._disarm(reader, writer)
                writer.write(b'{"ok": true}\n')

        writer.greet = greet
        if isinstance(reader, _Reader):
            reader.greet = greet
        await handler(ticket, reader, writer, self._machine)
        greet()
        await writer.drain()

    def _refuse(self, writer: _Writer, code: str, detail: str) -> None:
        """Tell why, unless the verb's bytes are flowing already: then closing is all that can be said."""
        if writer.transport.is_closing() or getattr(writer, "is_open", False):
            return
        writer.greet = None
        writer.write(json.dumps(wording.fit({"ok": False, "code": code, "detail": detail})).encode() + b"\n")

    @staticmethod
    def _disarm(reader: asyncio.StreamReader, writer: _Writer) -> None:
        writer.greet = None
        if isinstance(reader, _Reader):
            reader.greet = None
        writer.is_open = True  # type: ignore[attr-defined]

    async def _hang_up(self, writer: _Writer) -> None:
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), PATIENCE_S)
        except (OSError, TimeoutError, ssl.SSLError):
            writer.transport.abort()

    def _check(self, line: bytes) -> Ticket:
        try:
            text = json.loads(line)["ticket"]
        except (ValueError, KeyError, TypeError) as error:
            raise TicketError("ticket_malformed", "The first line is no JSON document with a ticket.") from error
        ticket = verify(self._key, str(text), agent=self._machine.uuid, now=self._now())
        if not self._journal.use_nonce(ticket.nonce, ticket.exp):
            raise TicketError("ticket_used", "The ticket was used before; ask for a new one.")
        return ticket


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.readline(), PATIENCE_S)
    except ValueError as error:
        raise TicketError("ticket_malformed", "The first line has no end.") from error


def _own_address(text: str) -> str | None:
    """Where to listen: the machine's address when it is one. A name may lead to its own loopback: then everywhere."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
