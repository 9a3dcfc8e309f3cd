"""The release of the agent that this control brings, and who is behind it."""

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Release:
    """The agent as one file. `version` is what its `version` command prints."""

    version: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@cache
def version() -> str:
    """The version of the release, found once a process in less than a second."""
    from cloud.agent import bundle

    return bundle.release()


@cache
def current() -> Release:
    """The release, built once a process, so that a new one is what a restarted worker installs."""
    from cloud.agent import bundle

    with tempfile.TemporaryDirectory(prefix="mica-agent-") as folder:
        out = Path(folder) / "agent.pyz"
        made = bundle.build(out)
        return Release(made, out.read_bytes())


def is_outdated(agent_version: str) -> bool:
    """Whether an agent of this version is not of this control's release.

    One that never spoke is not; nor is one that runs from a checkout (`+dev`) and has no file to replace.
    """
    return bool(agent_version) and not agent_version.endswith("+dev") and agent_version != version()
