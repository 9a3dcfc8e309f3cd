"""What the simulator is told: a directory that control writes and the simulator watches.

`simulator.json` says which machines there are and how to reach control, `faults.json` what they suffer. The simulator
keeps `disks.pickle` there: what of its machines outlives it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.agent.config import ConfigError
from cloud.common.faults import Fault
from cloud.common.wire import Document, Message

CONFIG, FAULTS, DISKS = "simulator.json", "faults.json", "disks.pickle"
# In `faults.json`, the name that stands for all machines.
ALL = "all"


@dataclass(frozen=True)
class Simulated(Message):
    """One machine. `role` is the kind of its agent, `address` what it says it has in the management network."""

    uuid: str
    name: str
    address: str
    role: str = "host"
    cpu_threads: int = 32
    memory_bytes: int = 128 << 30


@dataclass(frozen=True)
class SimulatorConfig(Message):
    """The content of simulator.json; passwords and tokens stay out of the representation."""

    redis_url: str
    redis_username: str = ""
    redis_password: str = field(default="", repr=False)
    metrics_url: str = ""
    metrics_token: str = field(default="", repr=False)
    ticket_key: str = ""
    machines: tuple[Simulated, ...] = ()


@dataclass(frozen=True)
class Declared:
    """A fault, and when it was declared: a machine dies once for each time it is told to."""

    fault: Fault = field(default_factory=Fault)
    at: float = 0.0


def load(directory: Path) -> SimulatorConfig:
    """Read simulator.json. Raises ConfigError when it is not there yet or makes no sense."""
    path = directory / CONFIG
    try:
        return SimulatorConfig.from_document(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def load_faults(directory: Path) -> dict[str, Declared]:
    """Read faults.json, {name: {"words": […], "at": …}}; nothing when it is not there. Raises ConfigError."""
    path = directory / FAULTS
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return {name: Declared(Fault.of_words(each["words"]), float(each["at"])) for name, each in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def save(path: Path, document: Document) -> None:
    """Write a file of the directory whole or not at all, readable by root alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(document))
    partial.replace(path)
