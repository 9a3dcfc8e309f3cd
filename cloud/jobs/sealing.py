"""Keeping what a caller sent so that nobody reads it in the database: sealed with a key outside of it."""

import base64
import hashlib
import json
from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings


@cache
def _box() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"jobs.wish" + settings.SECRET_KEY.encode()).digest()))


def seal(value: Any) -> str:
    """Plain JSON, sealed."""
    return _box().encrypt(json.dumps(value).encode()).decode()


def unseal(text: str) -> Any:
    """What was sealed; None when the platform's secret key is another one now."""
    try:
        return json.loads(_box().decrypt(text.encode()))
    except InvalidToken:
        return None
