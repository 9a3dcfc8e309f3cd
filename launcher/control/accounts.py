"""Running a server as the user its Debian package made."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from launcher.errors import Refusal


def as_user(user: str) -> list[str]:
    """The words before a command that give up root for good (setpriv(1))."""
    return ["setpriv", f"--reuid={user}", f"--regid={_entry(user).pw_gid}", "--init-groups", "--"]


def give(path: Path, user: str, mode: int) -> None:
    """Make a file or folder the user's, with this mode."""
    entry = _entry(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(mode)


def own_folder(path: Path, user: str, mode: int = 0o700) -> Path:
    """A folder of the user's, made when absent."""
    path.mkdir(parents=True, exist_ok=True)
    give(path, user, mode)
    return path


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise Refusal(f"The user {user} does not exist", "Install its package again: ./mica up does.") from None
