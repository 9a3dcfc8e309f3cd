"""The list of agents that may push samples, as vmauth reads it: a bearer token per agent. No Django."""

import json
import os
import secrets
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

RELOAD_TIMEOUT_S = 3


def write(path: Path, tokens: Iterable[str], store_url: str) -> None:
    """Write `auth.yml` whole or not at all, readable for the owner and vmauth's group only.

    JSON is YAML, so nothing is quoted by hand. vmauth refuses an empty list: one user whom nobody knows stands first.
    """
    write_only = [{"src_paths": ["/write"], "url_prefix": store_url.rstrip("/")}]
    nobody = [{"bearer_token": secrets.token_urlsafe(32), "url_map": write_only}]
    users = [{"bearer_token": token, "url_map": write_only} for token in tokens]
    text = json.dumps({"users": nobody + users}, indent=1)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            held = path.stat()
            os.chmod(partial, held.st_mode & 0o7777)
            os.chown(partial, held.st_uid, held.st_gid)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def reload(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Ask vmauth to read the list again (`/-/reload`). False when it does not answer: it reads it at its next start."""
    try:
        with urllib.request.urlopen(url, timeout=RELOAD_TIMEOUT_S, context=tls) as answer:  # noqa: S310 - an operator's setting
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
