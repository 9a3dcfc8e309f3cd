"""Times and durations as Prometheus' API takes them: RFC 3339 or Unix seconds; seconds or `5m`, `1h30m`."""

import math
import re
from datetime import datetime

from django.utils.translation import gettext as _

from cloud.common.errors import Invalid

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_PARTS = re.compile(r"(\d{1,12})(ms|[smhdwy])", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,12}(?:ms|[smhdwy]))+", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_LATEST = 253402300799  # the end of the year 9999


def moment(name: str, text: str) -> float:
    """Unix seconds. Raises Invalid, with the reason under `name`."""
    seconds = math.nan
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    else:
        try:
            parsed = datetime.fromisoformat(text)
            seconds = parsed.timestamp() if parsed.tzinfo else math.nan
        except (ValueError, OverflowError):
            pass
    if not 0 <= seconds <= _LATEST:
        raise _invalid(name, _("Give Unix seconds or a time as 2026-01-31T12:00:00Z."))
    return seconds


def duration(name: str, text: str) -> float:
    """Seconds. Raises Invalid, with the reason under `name`."""
    if _NUMBER.fullmatch(text) and float(text) > 0:
        return float(text)
    if _DURATION.fullmatch(text):
        return sum(int(number) * _UNITS_S[unit] for number, unit in _PARTS.findall(text))
    raise _invalid(name, _("Give seconds or a duration as 30s, 5m, 1h30m."))


def _invalid(name: str, reason: str) -> Invalid:
    return Invalid(_("Not valid: %(names)s.") % {"names": name}, code="invalid", errors={name: [reason]})
