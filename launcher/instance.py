"""Which instance of Mica a checkout runs, and where its things lie."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import Refusal

DATA_ROOT = Path("/var/lib/mica")
RUN_ROOT = Path("/run/mica")
LOG_ROOT = Path("/var/log/mica")
CACHE = DATA_ROOT / "cache"
DEFAULT_PORT = 8000
NAME_LENGTH = 40  # longer ones would not fit a unix socket's path (108 bytes, unix(7))


@dataclass(frozen=True)
class Instance:
    """An instance: its name, the checkout it runs, its web port. Data, run and log folders follow from the name."""

    name: str
    checkout: Path
    port: int = DEFAULT_PORT

    @classmethod
    def of_checkout(cls, checkout: Path, env: Mapping[str, str] = os.environ) -> Instance:
        """The instance of this checkout; MICA_INSTANCE and MICA_PORT override. Raises Refusal on a bad value."""
        name = env.get("MICA_INSTANCE") or default_name(checkout)
        if not re.fullmatch(rf"[a-z0-9][a-z0-9-]{{0,{NAME_LENGTH - 1}}}", name) or name == CACHE.name:
            raise Refusal(
                f"MICA_INSTANCE={name!r} is not a name for an instance",
                f"Use at most {NAME_LENGTH} lower-case letters, digits and hyphens (and not '{CACHE.name}').",
            )
        port = env.get("MICA_PORT") or str(DEFAULT_PORT)
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise Refusal(f"MICA_PORT={port!r} is not a port", "Use a number from 1 to 65535.")
        return cls(name, checkout.resolve(), int(port))

    @property
    def id6(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:6]

    @property
    def data(self) -> Path:
        return DATA_ROOT / self.name

    @property
    def run(self) -> Path:
        return RUN_ROOT / self.name

    @property
    def log(self) -> Path:
        return LOG_ROOT / self.name

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin/python"

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def ssh_key(self) -> Path:
        """The key injected into the instances of the lab; its public half has the suffix .pub."""
        return self.data / "lab/ssh/id_ed25519"

    def namespace(self, place: str) -> str:
        """Name of the network namespace of a place of the lab (`mgmt`, `underlay`, `host-1`, …)."""
        return f"mica-{self.id6}-{place}"


def default_name(checkout: Path) -> str:
    """Readable and unique for a path: its last part and the start of its SHA-256."""
    real = checkout.resolve()
    readable = re.sub(r"[^a-z0-9]+", "-", real.name.lower()).strip("-") or "mica"
    return f"{readable[: NAME_LENGTH - 12].rstrip('-')}-{hashlib.sha256(str(real).encode()).hexdigest()[:6]}"
