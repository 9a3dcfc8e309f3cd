"""The control side of the stream door: bytes to and from a machine, by a single-use ticket over mutual TLS."""

import asyncio
import json
import ssl
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from cloud.common import pki, tickets, tls
from cloud.common.errors import Problem, Unavailable
from cloud.infra.models import Agent

STREAM_PORT = 7443
TICKET_TTL_S = 60
OPEN_TIMEOUT_S = 10


def ticket(
    agent: UUID | str, verb: str, resource: UUID | str, params: dict[str, Any], ttl: float = TICKET_TTL_S
) -> str:
    """A signed ticket for one use of one verb on one resource, good for `ttl` seconds (at most 300)."""
    return tickets.sign(
        _signing_key(settings.MICA["pki"]),
        agent=str(agent),
        verb=verb,
        resource=str(resource),
        params=params,
        ttl_s=ttl,
    )


async def open(
    agent: Agent, verb: str, resource: UUID | str, params: dict[str, Any] | None = None, *, port: int = STREAM_PORT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream to a machine's door; what follows on it are the verb's raw bytes both ways.

    Raises Unavailable when the machine does not answer, Problem with the agent's code when it refuses.
    """
    signed = ticket(agent.pk, verb, resource, params or {})
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                agent.address, port, ssl=_context(settings.MICA["pki"]), server_hostname=str(agent.pk)
            )
            writer.write(json.dumps({"ticket": signed}).encode() + b"\n")
            await writer.drain()
            answer = json.loads(await reader.readline())
    except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:
        if writer is not None:
            writer.close()
        raise Unavailable(
            _("The agent of %(name)s does not accept the connection.") % {"name": agent.name},
            code="stream_unavailable",
            advice=_("Check that it is connected and that its port %(port)d can be reached.") % {"port": port},
        ) from error
    if not answer.get("ok"):
        writer.close()
        raise Problem(answer.get("detail", ""), code=answer.get("code", "stream_refused"))
    return reader, writer


@cache
def _signing_key(directory: Path) -> Any:
    return tickets.load_signing_key(directory / "ticket.key")


@cache
def _context(directory: Path) -> ssl.SSLContext:
    """Control's own client certificate is made at first use; each process keeps the context."""
    out = directory / "control"
    pki.issue(directory, "control", out=out, is_client=True)
    return tls.client_context(directory / "ca.pem", Path(f"{out}.pem"), Path(f"{out}.key"))
