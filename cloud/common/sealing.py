"""Secrets on their way to a machine: sealed to the key of its certificate, so that nobody between can read them.

ECDH on P-256 with a key made for this one secret, HKDF-SHA256, AES-256-GCM; the machine's uuid is bound in. Must work
with cryptography 38: this module is on the agent's path.

A sealed value is `{"$sealed": "<base64 of: 1, ephemeral point (65 bytes), nonce (12), ciphertext and tag>"}`.
"""

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloud.common.driver import Transient
from cloud.common.wire import Document, Secret

MARK = "$sealed"
_VERSION, _POINT_BYTES, _NONCE_BYTES = b"\x01", 65, 12


def has_secrets(document: Document) -> bool:
    """Whether anything in the document is marked as a secret."""
    found: list[Secret] = []
    _walk(document, Secret, lambda secret: found.append(secret))
    return bool(found)


def sealed(document: Document, agent: str, public_key: str) -> Document:
    """The document with its secrets sealed to the machine of `agent`, whose public key (PEM) is given.

    With an empty key (the machine was enrolled before keys were kept) they travel as they are, inside TLS.
    """
    if not public_key:
        return dict(_walk(document, Secret, Secret.reveal))
    key = serialization.load_pem_public_key(public_key.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError(f"the key of agent {agent} is no elliptic-curve key")
    return dict(_walk(document, Secret, lambda secret: {MARK: _seal(secret.reveal(), agent, key)}))


def opened(document: Document, agent: str, key_path: Path) -> Document:
    """The document with its sealed values opened by this machine's private key.

    Raises Transient `secret_unreadable` when they were sealed to another key: asked again, they are sealed anew.
    """
    return dict(
        _walk(document, dict, lambda value: _open(str(value[MARK]), agent, key_path) if MARK in value else None)
    )


def public_key_of(certificate: str) -> str:
    """The public key (PEM) in a certificate (PEM)."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _walk(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The value with `change` done to everything of a kind in it; None from `change` means to look inside instead."""
    if isinstance(value, kind) and (changed := change(value)) is not None:
        return changed
    if isinstance(value, dict):
        return {name: _walk(item, kind, change) for name, item in value.items()}
    return [_walk(item, kind, change) for item in value] if isinstance(value, list) else value


def _seal(text: str, agent: str, key: ec.EllipticCurvePublicKey) -> str:
    own = ec.generate_private_key(ec.SECP256R1())
    point = own.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    nonce = os.urandom(_NONCE_BYTES)
    box = AESGCM(_derived(own.exchange(ec.ECDH(), key), point))
    text_sealed = box.encrypt(nonce, text.encode("utf-8", "surrogatepass"), agent.encode())
    return base64.b64encode(_VERSION + point + nonce + text_sealed).decode()


def _open(blob: str, agent: str, key_path: Path) -> str:
    try:
        raw = base64.b64decode(blob, validate=True)
        point, rest = raw[1 : 1 + _POINT_BYTES], raw[1 + _POINT_BYTES :]
        if raw[:1] != _VERSION:
            raise ValueError("another version")
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("another kind of key")
        shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
        box = AESGCM(_derived(shared, point))
        return box.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], agent.encode()).decode("utf-8", "surrogatepass")
    except (ValueError, TypeError, OSError, InvalidTag, binascii.Error) as error:
        detail = f"A secret in the message cannot be opened by this machine ({type(error).__name__})."
        raise Transient("secret_unreadable", detail) from None


def _derived(shared: bytes, point: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"mica sealed message 1" + point).derive(shared)
