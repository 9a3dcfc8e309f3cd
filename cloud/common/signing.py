"""Who said it: a mark on everything that agents tell control, for they all push to one list.

The mark is an HMAC-SHA256 over the document, the task it is for, the agent and the moment. Its key is made from the
SHA-256 of the agent's Redis password, which is what control keeps of it. No Django here: this module is on the agent's
path.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any

from cloud.common.wire import Document

_PURPOSE = b"mica agent speaks to control, 1"


def password_hash(password: str) -> str:
    """What control and Redis keep of a password: its SHA-256 in hexadecimal."""
    return hashlib.sha256(password.encode()).hexdigest()


def sign(hashed: str, task: str, document: Document, *, agent: str, at: float) -> Document:
    """The signature that goes with a document: {"agent", "at", "mac"}; `at` is seconds since the epoch."""
    return {"agent": agent, "at": at, "mac": _mac(hashed, task, document, agent, at)}


def is_genuine(hashes: Iterable[str], task: str, document: Any, signature: Any) -> bool:
    """Whether a signature was made for this task and document with one of these password hashes. Never raises."""
    try:
        agent, at, mac = str(signature["agent"]), float(signature["at"]), str(signature["mac"])
        return any(hmac.compare_digest(mac.encode(), _mac(one, task, document, agent, at).encode()) for one in hashes)
    except (TypeError, ValueError, KeyError, RecursionError, OverflowError):
        return False


def _mac(hashed: str, task: str, document: Any, agent: str, at: float) -> str:
    said = json.dumps([task, agent, at, document], sort_keys=True, separators=(",", ":")).encode()
    key = hmac.new(hashed.encode(), _PURPOSE, hashlib.sha256).digest()
    return hmac.new(key, said, hashlib.sha256).hexdigest()
