"""The websocket that carries the bytes of a console or a tunnel between a browser and a machine's stream door."""

import asyncio
import contextlib
import logging
from typing import Any

from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from cloud.common.errors import Problem
from cloud.infra import streams
from cloud.infra.models import Agent
from compute.services import doors

log = logging.getLogger(__name__)
CHUNK_BYTES = 65536
NO_TICKET, NO_MACHINE = 4404, 4503


class StreamConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Binary both ways. The ticket in the path is the right to open it: given once, to whoever was permitted.

    Closes with 4404 when the ticket is spent, 4503 when the machine cannot be reached; the reason says which.
    """

    writer: asyncio.StreamWriter | None = None
    pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        protocols = self.scope.get("subprotocols", [])
        await self.accept("binary" if "binary" in protocols else None)
        try:
            door = await sync_to_async(doors.redeem)(self.scope["url_route"]["kwargs"]["ticket"])
            agent = await Agent.objects.aget(pk=door.agent)
            reader, self.writer = await streams.open(agent, door.verb, door.resource, door.params)
        except Problem as problem:
            await self.close(NO_TICKET if problem.status == 404 else NO_MACHINE, str(problem.detail)[:120])
            return
        self.pump = asyncio.create_task(self._down(reader))

    async def _down(self, reader: asyncio.StreamReader) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self.send(bytes_data=chunk)
        except OSError as error:  # the machine, or the way to it, is gone
            log.info("stream ended: %s", error)
        finally:
            with contextlib.suppress(RuntimeError):  # the browser was quicker
                await self.close(1000)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.writer is None:
            return
        self.writer.write(bytes_data if bytes_data is not None else (text_data or "").encode())
        try:
            await self.writer.drain()
        except OSError:
            await self.close(1000)

    async def disconnect(self, code: Any) -> None:
        if self.pump:
            self.pump.cancel()
        if self.writer:
            self.writer.close()
