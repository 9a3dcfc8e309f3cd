"""`Idempotency-Key`: a write repeated with the same key is carried out once and answered the same.

The memory of answers is a table, so it lies in `cloud.events`, which fills the port here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.utils.translation import gettext as _

from cloud.common.actor import Actor
from cloud.common.errors import Invalid

HEADER = "Idempotency-Key"
_LONGEST = 255


@dataclass(frozen=True)
class Answer:
    """What was answered: status, body as plain JSON, and the headers that belong to it."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Memory(Protocol):
    def __call__(self, *, owner: str, key: str, fingerprint: str, act: Callable[[], Answer]) -> tuple[Answer, bool]: ...


_memories: list[Memory] = []


def fill(memory: Memory) -> None:
    """Say who remembers; called once, by `cloud.events` when it is ready."""
    _memories[:] = [memory]


def once(
    *, actor: Actor, key: str, method: str, path: str, body: bytes, act: Callable[[], Answer]
) -> tuple[Answer, bool]:
    """Do `act` unless this actor sent this key before; returns the answer and whether it is a repeated one.

    Raises Invalid for a key of a wrong shape, and for a key used before with another request (422).
    """
    if not 1 <= len(key) <= _LONGEST or not key.isprintable() or not key.isascii():
        raise Invalid(
            _("The Idempotency-Key is not usable."),
            code="bad_idempotency_key",
            advice=_("Send 1 to 255 printable ASCII characters, a fresh UUID for example."),
        )
    digest = hashlib.sha256(f"{method} {path} {actor.project}\n".encode() + body).hexdigest()
    for memory in _memories:
        return memory(owner=str(actor.user or actor.name)[:64], key=key, fingerprint=digest, act=act)
    return act(), False
