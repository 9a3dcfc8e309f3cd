"""Names in the network made from names that people give."""

import re
import unicodedata
from uuid import UUID

_LONGEST_LABEL = 63
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def hostname(instance_name: str, instance_uuid: UUID) -> str:
    """A DNS label (RFC 1123 §2.1) for an instance: its name as far as it goes, else one from its uuid."""
    plain = unicodedata.normalize("NFKD", instance_name).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST_LABEL].strip("-")
    return label or f"vm-{instance_uuid.hex[:8]}"


def is_domain(text: str) -> bool:
    """Whether this is a DNS domain in lower case, without a dot at its end."""
    return bool(_DOMAIN.fullmatch(text))
