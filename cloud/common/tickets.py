"""Tickets for the stream door: signed by control with Ed25519, good once, for one agent, verb and resource.

A ticket is `<base64url JSON>.<base64url signature>`. No Django here: this module is on the agent's path, and must work
with cryptography 38.
"""

import base64
import binascii
import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LONGEST_S = 300
TEXT_LIMIT = 8192


class TicketError(Exception):
    """A ticket is not acceptable. `code` is stable: ticket_malformed, _forged, _expired, _misdirected, _used."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Ticket:
    """What a ticket says. `agent` is the agent's uuid, `exp` seconds since the epoch, `nonce` makes it single-use."""

    agent: str
    verb: str
    resource: str
    params: dict[str, Any] = field(default_factory=dict)
    exp: float = 0.0
    nonce: str = ""


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The private key of `ticket.key`. Raises ValueError when it is no Ed25519 key."""
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds no Ed25519 key")
    return key


def load_public_key(text: str) -> Ed25519PublicKey:
    """The public key of `ticket.pub` and agent.json: base64 of its 32 bytes."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=False))


def sign(
    key: Ed25519PrivateKey,
    *,
    agent: str,
    verb: str,
    resource: str,
    params: dict[str, Any] | None = None,
    ttl_s: float = 60,
) -> str:
    """A fresh ticket, good for `ttl_s` seconds (at most five minutes)."""
    if not 0 < ttl_s <= LONGEST_S:
        raise ValueError(f"a ticket lives at most {LONGEST_S} seconds")
    ticket = Ticket(agent, verb, resource, dict(params or {}), time.time() + ttl_s, secrets.token_urlsafe(18))
    payload = json.dumps(asdict(ticket), sort_keys=True, separators=(",", ":")).encode()
    return f"{_encode(payload)}.{_encode(key.sign(payload))}"


def verify(key: Ed25519PublicKey, text: str, *, agent: str, now: float | None = None) -> Ticket:
    """The ticket, when it is genuine, meant for `agent` and in date; whether it was used is the caller's to know.

    Raises TicketError.
    """
    payload, signature = _split(text)
    try:
        key.verify(signature, payload)
    except InvalidSignature as error:
        raise TicketError("ticket_forged", "The ticket was not signed by this platform.") from error
    ticket = _parse(payload)
    moment = time.time() if now is None else now
    if ticket.agent != agent:
        raise TicketError("ticket_misdirected", f"The ticket is for agent {ticket.agent}.")
    if ticket.exp <= moment:
        raise TicketError("ticket_expired", "The ticket has expired; ask for a new one (and check the clocks).")
    if ticket.exp > moment + LONGEST_S:
        raise TicketError("ticket_expired", "The ticket lives too long; check the clocks of control and agent.")
    return ticket


def addressee(text: str) -> str:
    """The uuid of the agent a ticket is for, unverified: whom to expect at the other end. Raises TicketError."""
    return _parse(_split(text)[0]).agent


def _split(text: str) -> tuple[bytes, bytes]:
    if len(text) > TEXT_LIMIT:
        raise TicketError("ticket_malformed", "The ticket is too long.")
    payload, dot, signature = text.partition(".")
    try:
        if not dot:
            raise ValueError("no signature")
        return _decode(payload), _decode(signature)
    except (binascii.Error, ValueError) as error:
        raise TicketError("ticket_malformed", "The ticket cannot be read.") from error


def _parse(payload: bytes) -> Ticket:
    try:
        document = json.loads(payload)
        ticket = Ticket(**document)
    except (ValueError, TypeError) as error:
        raise TicketError("ticket_malformed", "The ticket cannot be read.") from error
    texts = (ticket.agent, ticket.verb, ticket.resource, ticket.nonce)
    if not all(isinstance(t, str) for t in texts) or not isinstance(ticket.exp, (int, float)):
        raise TicketError("ticket_malformed", "The ticket cannot be read.")
    if not isinstance(ticket.params, dict) or not ticket.nonce:
        raise TicketError("ticket_malformed", "The ticket cannot be read.")
    return ticket


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    content = text.encode("ascii")
    return base64.b64decode(content + b"=" * (-len(content) % 4), altchars=b"-_", validate=True)
