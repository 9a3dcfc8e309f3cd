"""Secrets that are shown once: only their SHA-256 is kept. They are random and long, so a plain hash is enough."""

import hashlib
import secrets


def make(prefix: str) -> str:
    """A fresh secret of 256 random bits with a prefix that tells people and scanners what it is."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
