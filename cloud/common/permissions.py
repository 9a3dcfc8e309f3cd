"""Permission names: each act has one, declared beside its app; roles and tokens grant them by name or wildcard."""

import re
from typing import Any

_DECLARED: dict[str, Any] = {}
_SHAPE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def declare(name: str, label: Any) -> str:
    """Make a permission known: `declare("instance.start", _("Start instances"))`.

    `name` is `<kind>.<verb>` and shared by permission, job and event. Returns the name. Raises ValueError when the name
    has another shape or is declared already with another label.
    """
    if not _SHAPE.fullmatch(name):
        raise ValueError(f"a permission is named <kind>.<verb> in lower snake case, not {name!r}")
    known = _DECLARED.setdefault(name, label)
    if known is not label and str(known) != str(label):
        raise ValueError(f"the permission {name} is declared twice")
    return name


def declared() -> dict[str, Any]:
    """Every declared permission with its label, by name."""
    return dict(sorted(_DECLARED.items()))


def is_declared(name: str) -> bool:
    return name in _DECLARED
