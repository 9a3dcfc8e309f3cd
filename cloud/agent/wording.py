"""Words as control can keep them: PostgreSQL takes neither NUL nor half a surrogate pair, machines emit both.

Everything told to control goes through here on its way out: in the outbox, in the link's own keys, at the door.
"""

import re
from typing import Any

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def fit(value: Any) -> Any:
    """A JSON value, keys and all, with a replacement character for each that cannot be kept."""
    if isinstance(value, str):
        return _UNFIT.sub(_INSTEAD, value)
    if isinstance(value, dict):
        return {fit(key): fit(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fit(item) for item in value]
    return value
