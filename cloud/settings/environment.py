"""Where settings come from: `MICA_*` in the environment first, then `mica.toml` beside the checkout or in /etc/mica."""

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

CHECKOUT = Path(__file__).resolve().parents[2]


@cache
def _file() -> dict[str, object]:
    named = os.environ.get("MICA_CONFIG")
    places = [Path(named)] if named else [CHECKOUT / "mica.toml", Path("/etc/mica/mica.toml")]
    for place in places:
        if place.is_file():
            return tomllib.loads(place.read_text())
    return {}


def setting(name: str, default: str = "") -> str:
    """The value of `MICA_<NAME>`, or of `<name>` in mica.toml, or the default; always text."""
    value = os.environ.get(f"MICA_{name.upper()}")
    if value is None:
        value = _file().get(name.lower(), default)  # type: ignore[assignment]
    return str(value)


def switch(name: str, default: bool = False) -> bool:
    """A setting that is on or off."""
    return setting(name, "1" if default else "0").lower() in ("1", "true", "yes", "on")


def names(name: str, default: str = "") -> list[str]:
    """A setting that is a list, written with commas."""
    return [part.strip() for part in setting(name, default).split(",") if part.strip()]


def database(url: str, pool: int = 0) -> dict[str, object]:
    """Django's database dictionary of `postgresql://user:password@host-or-socket-directory:port/name?option=value`.

    A socket directory is written as host, percent-encoded (`%2Frun%2Fmica`), as libpq does; options are libpq's
    (`sslmode=require`). With `pool`, each process keeps up to so many connections open: making one costs more than most
    requests and tasks do with it.
    """
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.netloc.rpartition("@")[2].rpartition(":")[0] or parts.netloc.rpartition("@")[2]),
        "PORT": str(parts.port or ""),
        "OPTIONS": {**dict(parse_qsl(parts.query)), **({"pool": _pool(pool)} if pool else {})},
        # A connection that PostgreSQL has closed since (it was started anew) is found before it is used.
        "CONN_HEALTH_CHECKS": bool(pool),
    }


def _pool(size: int) -> dict[str, object]:
    return {"min_size": 1, "max_size": size, "timeout": 10, "reconnect_timeout": 5, "reset": _unlocked}


def _unlocked(connection: Any) -> None:
    """A session lock that was not given back must not outlive its task: others use this session next."""
    connection.autocommit = True
    connection.execute("SELECT pg_advisory_unlock_all()")
