"""`manage.py tunnel INSTANCE PORT`: standard input and output become a TCP connection to the instance's port."""

import asyncio
import sys
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from cloud.common.actor import platform
from cloud.common.errors import Problem
from cloud.infra import streams
from cloud.infra.models import Agent
from compute.models import Instance, InstanceState
from compute.services import doors

BOOT_PATIENCE = timedelta(seconds=60)


class Command(BaseCommand):
    help = "Connect standard input and output to a TCP port of an instance, through its own network."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("instance", help="name or uuid")
        parser.add_argument("port", type=int)
        parser.add_argument("--check", action="store_true", help="only say whether there is something to connect to")

    def handle(self, *args: Any, instance: str, port: int, check: bool, **options: Any) -> None:
        if not 0 < port < 65536:
            raise CommandError(f"{port} is not a port; ports are 1 to 65535.")
        try:
            if check:
                doors.tunnel_door(find(instance), port=port)
            else:
                asyncio.run(_connect(instance, port))
        except Problem as problem:
            raise CommandError(f"{problem.detail} {problem.advice}".strip()) from None


def find(name: str) -> Instance:
    """The instance of this uuid or name. Raises CommandError when there is none, or several of that name."""
    visible = Instance.objects.visible_to(platform()).exclude(state=InstanceState.DESTROYED).select_related("host")
    found = list(visible.filter(name=name)) or (
        [i for i in visible if str(i.pk) == name.lower()] if len(name) == 36 else []
    )
    if not found:
        raise CommandError(f"There is no instance {name}. The API lists them at /api/v1/instances/.")
    if len(found) > 1:
        raise CommandError(f"Several instances are named {name}; give the uuid: " + ", ".join(str(i.pk) for i in found))
    return found[0]


async def _connect(name: str, port: int) -> None:
    instance = await sync_to_async(find)(name)
    door = await sync_to_async(doors.tunnel_door)(instance, port=port)
    reader, writer = await _knock(door, until=instance.settled_at + BOOT_PATIENCE)
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    async def up() -> None:
        while chunk := await stdin.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def down() -> None:
        while chunk := await reader.read(65536):
            await loop.run_in_executor(None, _write, chunk)

    sender, receiver = asyncio.create_task(up()), asyncio.create_task(down())
    # The guest's end ends it; ours only when it breaks: there may still be an answer to what was sent last.
    await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
    if not receiver.done() and not sender.exception():
        await receiver
    for task in (sender, receiver):
        task.cancel()
    writer.close()


async def _knock(door: doors.Door, *, until: datetime) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the door, with patience for a guest that was just started: it runs before it has booted."""
    agent = await Agent.objects.aget(pk=door.agent)
    while True:
        try:
            return await streams.open(agent, door.verb, door.resource, door.params)
        except Problem as problem:
            if problem.code != "connect_failed" or timezone.now() > until:
                raise
        await asyncio.sleep(1)


def _write(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
