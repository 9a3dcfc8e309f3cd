"""Which networks an image is never fetched from: a tenant's URL must not reach what only the platform may."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from cloud.config.services import value
from cloud.infra.models import Agent

# RFC 6890 and its likes: this host, loopback, link-local (and cloud metadata), multicast, broadcast, reserved.
ALWAYS = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "::1/128", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip


def networks() -> list[str]:
    """CIDRs: the special ones, the configured management and storage networks, and wherever an agent stands.

    An agent's own networks are those of the card that bears its address, so that nobody need configure the obvious.
    """
    places: dict[str, Any] = settings.MICA
    named = [*places["management_networks"], *places["storage_networks"]]
    named += [part.strip() for part in value("image.refused_networks").split(",") if part.strip()]
    found = list(dict.fromkeys(ALWAYS))
    for text in [*named, *_control(), *_agents()]:
        network = _network(text)
        if network and network not in found:
            found.append(network)
    return found


def _control() -> list[str]:
    """Where control itself is spoken to by agents."""
    places: dict[str, Any] = settings.MICA
    urls = (places["agent_redis_url"], places["agent_metrics_url"])
    return [host for url in urls if url and (host := urlsplit(url).hostname)]


def _agents() -> list[str]:
    found: list[str] = []
    for address, facts in Agent.objects.values_list("address", "facts"):
        found.append(address)
        for card in (facts or {}).get("nics", []):
            addresses = [str(text) for text in card.get("addresses", [])]
            if any(text.split("/")[0] == address for text in addresses):
                found.extend(addresses)
    return found


def _network(text: str) -> str | None:
    """The network of `10.0.0.5/24` or of a single address; None for a name or nonsense."""
    try:
        return str(ipaddress.ip_network(text.split("%")[0], strict=False))
    except ValueError:
        return None
