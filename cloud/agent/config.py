"""What one agent is told about itself when it is enrolled: the file agent.json beside its certificate."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

DIRECTORY = Path("/etc/mica/agent")
STATE_DIRECTORY = Path("/var/lib/mica-agent")
RUN_DIRECTORY = Path("/run/mica-agent")

Kind = Literal["host", "image_server"]


class ConfigError(Exception):
    """agent.json is missing or does not make sense; the text says what to do."""


@dataclass(frozen=True)
class AgentConfig:
    """The content of agent.json. `ticket_key` is the public Ed25519 key (base64) that signs stream tickets.

    `redis_password` and `metrics_token` are secrets and stay out of the representation, hence out of every log.
    """

    uuid: str
    kind: Kind = "host"
    redis_url: str = ""
    redis_username: str = ""
    redis_password: str = field(default="", repr=False)
    metrics_url: str = ""
    metrics_token: str = field(default="", repr=False)
    stream_port: int = 7443
    address: str = ""
    ticket_key: str = ""
    hypervisor: Literal["libvirt", "fake"] = "libvirt"
    directory: Path = DIRECTORY

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        return self.directory / "key.pem"


def load(directory: Path = DIRECTORY) -> AgentConfig:
    """Read `<directory>/agent.json`. Raises ConfigError; unknown keys are left alone (a newer control wrote them)."""
    path = directory / "agent.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        known = {f.name for f in fields(AgentConfig)} - {"directory"}
        config = AgentConfig(**{k: v for k, v in document.items() if k in known}, directory=directory)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): enrol this machine with the platform") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): enrol this machine again") from error
    if not config.redis_url or not config.ticket_key:
        raise ConfigError(f"{path} names no redis_url or no ticket_key: enrol this machine again")
    return config
