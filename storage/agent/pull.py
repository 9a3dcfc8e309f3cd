"""An image from an image server to a host, over the stream door: one JSON line with its length, then its bytes."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cloud.agent.registry import Machine, stream_verb
from cloud.common.driver import Rejected, Transient
from cloud.common.tickets import Ticket
from storage.agent import places
from storage.messages import ImageOrigin, StoragePlace

VERB = "storage.image_read"
CHUNK_BYTES = 1 << 20
HEADER_LIMIT = 4096
LOOK_S, SILENCE_S = 1.0, 60.0
# What the door says of a ticket or of itself that a fresh ticket, or another try, cures.
PASSING = {"ticket_expired", "ticket_used", "door_busy", "internal_error"}


class StreamBody:
    """What the other agent sends, as `drivers.base.Body`. Raises Transient when it breaks off or falls silent.

    While nothing comes, an empty chunk a second lets the receiver look whether the work is still wanted.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.size_bytes: int | None = self._header()

    def chunks(self) -> Iterator[bytes]:
        left, heard_at = self.size_bytes or 0, time.monotonic()
        self._stream.settimeout(LOOK_S)
        while left:
            try:
                chunk = self._stream.recv(min(CHUNK_BYTES, left))
            except TimeoutError as error:
                if time.monotonic() - heard_at >= SILENCE_S:
                    raise Transient("stream_silent", f"The image server sent nothing for {SILENCE_S:.0f} s.") from error
                yield b""
                continue
            except OSError as error:
                raise Transient("stream_broken", f"The image server broke off, {left} bytes to go: {error}") from error
            if not chunk:
                raise Transient("stream_broken", f"The image server broke off, {left} bytes to go.")
            left, heard_at = left - len(chunk), time.monotonic()
            yield chunk

    def _header(self) -> int:
        line = b""
        try:
            while not line.endswith(b"\n"):
                byte = self._stream.recv(1)
                if not byte or len(line) > HEADER_LIMIT:
                    raise ValueError("no header")
                line += byte
            return int(json.loads(line)["size_bytes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Transient("stream_broken", f"The image server did not say what it sends: {error}") from error


@contextmanager
def pulled(machine: Machine, origin: ImageOrigin) -> Iterator[StreamBody]:
    """The image's bytes from the server that holds it."""
    try:
        stream = machine.open_stream(origin.address, origin.port, origin.ticket)
    except Rejected as error:
        if error.code in PASSING:
            raise Transient(error.code, error.detail) from error
        raise
    with stream:
        yield StreamBody(stream)


@stream_verb(VERB)
async def send_image(
    ticket: Ticket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: Machine
) -> None:
    """Send the image that the ticket names: signed by control, and checked as a path all the same."""
    named = ticket.params.get("storage") or {}
    try:
        place = StoragePlace(str(named["uuid"]), str(named["kind"]), str(named["path"]))
    except KeyError as error:
        raise Rejected("ticket_malformed", f"The ticket does not say {error}.") from error
    store = places.image_store(machine, place)
    with await asyncio.to_thread(store.open_image, str(ticket.params.get("image", ""))) as file:
        size_bytes = await asyncio.to_thread(file.seek, 0, 2)
        await asyncio.to_thread(file.seek, 0)
        writer.write(json.dumps({"size_bytes": size_bytes}).encode() + b"\n")
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
