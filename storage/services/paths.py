"""Which directories of a machine a storage may be at."""

import posixpath

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Invalid

# Directories of the system, which no storage may be or hold, and those that no storage may be inside of.
_WHOLE = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr", "/var", "/var/lib")  # noqa: S108
_INSIDE = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys",
           "/usr/bin", "/usr/lib", "/usr/sbin", "/var/lib/libvirt", "/var/lib/mica-agent")  # fmt: skip


def checked(path: str) -> str:
    """The path of a storage in normal form. Raises Invalid when it is not absolute or belongs to the system."""
    reason = _reason_against(path)
    if reason:
        raise Invalid(
            _("A storage cannot be at %(path)s.") % {"path": path or "''"},
            code="bad_path",
            advice=_("Give a directory for nothing else, as /srv/primary."),
            errors={"path": [reason]},
        )
    return posixpath.normpath(path)


def overlap(one: str, other: str) -> bool:
    """Whether one directory is, or holds, the other."""
    return one == other or one.startswith(other + "/") or other.startswith(one + "/")


def _reason_against(path: str) -> object:
    if not path.startswith("/") or path.startswith("//"):
        return _("Give an absolute path.")
    if any(part in (".", "..") for part in path.split("/")):
        return _("Give a path without . and ..")
    if len(path) > 1000 or not path.isprintable():
        return _("Give a shorter path of printable characters.")
    normal = posixpath.normpath(path)
    if normal in _WHOLE or any(normal == part or normal.startswith(part + "/") for part in _INSIDE):
        return _("This directory belongs to the system.")
    return None
