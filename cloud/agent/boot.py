"""Tells a restarted machine from a restarted agent."""

import os
import uuid
from pathlib import Path


def boot_id(directory: Path) -> str:
    """An id that lives as long as the machine is up: kept in a file in `directory`, which must not survive a reboot."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "boot-id"
    partial = directory / f"boot-id.{os.getpid()}"
    partial.write_text(f"{uuid.uuid4()}\n")
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path.read_text().strip()
