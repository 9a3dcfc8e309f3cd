"""How one machine reads from another: a client of its stream door, by a ticket that control signed."""

import json
import socket
import ssl

from cloud.agent.config import AgentConfig
from cloud.common import tls
from cloud.common.driver import Rejected, Transient
from cloud.common.tickets import TicketError, addressee

CONNECT_S = 10.0
SILENCE_S = 60.0
GREETING_LIMIT = 4096


def connect(config: AgentConfig, address: str, port: int, ticket: str) -> ssl.SSLSocket:
    """A blocking TLS socket past the door's greeting. A read or write that stands still for a minute raises OSError.

    The other end must hold the certificate of the agent that the ticket names. Raises Transient when it cannot be
    reached or is another, Rejected with the door's code when it refuses.
    """
    try:
        agent = addressee(ticket)
    except TicketError as error:
        raise Rejected(error.code, error.detail) from error
    context = tls.client_context(config.ca, config.certificate, config.key)
    try:
        plain = socket.create_connection((address, port), timeout=CONNECT_S)
    except OSError as error:
        raise Transient("stream_unreachable", f"The agent at {address}:{port} does not answer: {error}") from error
    try:
        stream = context.wrap_socket(plain, server_hostname=agent)
    except OSError as error:
        plain.close()
        raise Transient("stream_untrusted", f"{address}:{port} is not the agent {agent}: {error}") from error
    knock(stream, ticket, f"{address}:{port}")
    return stream


def knock(stream: socket.socket, ticket: str, name: str) -> None:
    """Show the ticket to the door at the other end, and go past its greeting. Raises Transient, Rejected."""
    try:
        stream.sendall(json.dumps({"ticket": ticket}).encode() + b"\n")
        greeting = json.loads(_line(stream))
    except (OSError, ValueError) as error:
        stream.close()
        raise Transient("stream_broken", f"The agent at {name} broke off: {error}") from error
    if not greeting.get("ok"):
        stream.close()
        raise Rejected(str(greeting.get("code", "refused")), str(greeting.get("detail", "The stream was refused.")))
    stream.settimeout(SILENCE_S)


def _line(stream: socket.socket) -> bytes:
    """One line and not a byte more: what follows are the verb's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionError("closed before the greeting")
        line += byte
        if len(line) > GREETING_LIMIT:
            raise ValueError("the greeting has no end")
    return line
