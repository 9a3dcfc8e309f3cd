"""Which addresses a download may go to: never this machine's, the platform's or a storage's own.

The check is made on the address that is then connected to, so a name that resolves differently the second time gains
nothing. Sources: RFC 6890 (special addresses), RFC 4291 2.5.5 (mapped), RFC 3056 (6to4), RFC 6052 (NAT64).
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable

from cloud.common.driver import Rejected, Transient

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], list[str]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, in the order to try. Raises Rejected `name_unknown`, Transient."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Transient("name_server_silent", f"The name {host} cannot be resolved now.") from error
        raise Rejected("name_unknown", f"The name {host} does not exist.") from error
    except (UnicodeError, OSError) as error:
        raise Rejected("name_unknown", f"{host!r} is not a host name.") from error
    return list(dict.fromkeys(str(entry[4][0]).split("%")[0] for entry in found))


class Guard:
    """The networks that are refused, as CIDRs, and how names are resolved."""

    def __init__(self, refused: Iterable[str], resolver: Resolver = resolve) -> None:
        self._refused: list[Network] = [ipaddress.ip_network(cidr, strict=False) for cidr in refused]
        self._resolver = resolver

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of `host` that may be connected to.

        Raises Rejected `address_refused` when any of them is refused: a name that also leads inside is not trusted.
        """
        found = self._resolver(host, port)
        for text in found:
            if network := self.refusing(text):
                raise Rejected(
                    "address_refused", f"{host} leads to {text}, inside {network}, where images are not fetched from."
                )
        if not found:
            raise Rejected("name_unknown", f"The name {host} has no address.")
        return found

    def refusing(self, text: str) -> Network | None:
        """The refused network that the address is in, also by way of an IPv4 address wrapped in it."""
        for address in _meant(ipaddress.ip_address(text)):
            for network in self._refused:
                if address.version == network.version and address in network:
                    return network
        return None


def _meant(address: Address) -> list[Address]:
    """The address and every IPv4 address that a gateway or the kernel would take it for."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            found.append(address.ipv4_mapped)
        if address.sixtofour:
            found.append(address.sixtofour)
        if address.teredo:
            found.extend(address.teredo)
        if address in _NAT64 or int(address) >> 32 == 0:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found
