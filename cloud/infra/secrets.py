"""Secrets that control must hold for a while: sealed with a key outside database and Redis, forgotten by themselves.

What a job needs travels as an id; the sealed document lies in Redis under `mica:secret:<id>` for 15 minutes, counted
anew each time it is used. What must last (a metrics token) is kept sealed in the database.
"""

import json
import uuid
from functools import cache
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.wire import Document
from cloud.jobs import agents

TTL_S = 900


def keep(document: Document) -> str:
    """Put a secret document away for 15 minutes; returns the id to find it by."""
    key = str(uuid.uuid4())
    agents.redis().set(_name(key), seal(json.dumps(document)), ex=TTL_S)
    return key


def find(key: str) -> Document:
    """The secret document of this id, kept for 15 minutes more. Raises Problem when its time is over."""
    sealed = agents.redis().getex(_name(key), ex=TTL_S)
    if sealed is None:
        raise Problem(
            _("The SSH secret is kept for 15 minutes after it was needed last, and that time is over."),
            code="secret_expired",
            advice=_("Give it again."),
        )
    document: Document = json.loads(unseal(sealed))
    return document


def forget(key: str) -> None:
    """Forget a secret now; absent is fine."""
    agents.redis().delete(_name(key))


def seal(text: str) -> str:
    return _box(settings.MICA["pki"]).encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Raises Problem when it was sealed with another key."""
    try:
        return _box(settings.MICA["pki"]).decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise Problem(
            _("A kept secret cannot be read: it was sealed with another key."),
            code="secret_unreadable",
            advice=_("Put the right secrets.key back, or reconnect the machine to make new secrets."),
        ) from error


def _name(key: str) -> str:
    return f"mica:secret:{key}"


@cache
def _box(directory: Path) -> Fernet:
    return Fernet((directory / "secrets.key").read_bytes().strip())
