"""Consoles through the stream door: a unix socket of the hypervisor's, byte for byte."""

import asyncio
from pathlib import Path

from cloud.common.driver import Transient

CHUNK_BYTES = 64 * 1024


async def bridge(socket: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between a unix socket and a stream until either end closes. Raises Transient when it cannot begin."""
    try:
        from_guest, to_guest = await asyncio.open_unix_connection(socket)
    except OSError as error:
        detail = f"The console at {socket} cannot be opened: {error.strerror}."
        raise Transient("console_unreachable", detail) from error
    ways = [asyncio.create_task(_carry(reader, to_guest)), asyncio.create_task(_carry(from_guest, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_guest.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
