"""Reading what people write as IPv4 addresses and networks; nothing here knows a row."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Invalid


@dataclass(frozen=True)
class Span:
    """Addresses `start` to `end` of a subnet, with its gateway or none."""

    start: IPv4Address
    end: IPv4Address
    subnet: IPv4Network
    gateway: IPv4Address | None

    @property
    def size(self) -> int:
        return int(self.end) - int(self.start) + 1


def address(text: str, field: str) -> IPv4Address:
    """The address written in `text`. Raises Invalid on the field."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise invalid(field, _("This is not an IPv4 address."), code="not_an_address") from None


def network(text: str, field: str) -> IPv4Network:
    """The network written as `10.0.0.0/24`. Raises Invalid on the field; host bits must be zero."""
    try:
        return IPv4Network(text)
    except ValueError:
        raise invalid(field, _("This is not an IPv4 network, as 10.0.0.0/24."), code="not_a_network") from None


def span(
    *,
    cidr: str = "",
    start: str = "",
    end: str = "",
    prefix: int | None = None,
    netmask: str = "",
    gateway: str | None = None,
) -> Span:
    """A range from a network, or from its two ends with prefix or netmask.

    With `cidr` alone the range is all its host addresses and the gateway the first of them; `gateway` "" means none.
    Raises Invalid when the ends do not lie in one subnet in order, or the gateway not among its host addresses.
    """
    if cidr:
        subnet = network(cidr, "cidr")
        if subnet.prefixlen > 30:
            raise invalid("cidr", _("A network needs room for a gateway and a guest: /30 or larger."))
        first, last = subnet.network_address + 1, subnet.broadcast_address - 1
        first = address(start, "start") if start else first
        last = address(end, "end") if end else last
        gateway = str(subnet.network_address + 1) if gateway is None else gateway
    else:
        first, last = address(start, "start"), address(end, "end")
        subnet = _subnet(first, prefix, netmask)
    for field, end_of_range in (("start", first), ("end", last)):
        _expect_host_of(subnet, end_of_range, field)
    if last < first:
        raise invalid("end", _("The end comes before the start."))
    router = address(gateway, "gateway") if gateway else None
    if router is not None:
        _expect_host_of(subnet, router, "gateway")
    return Span(first, last, subnet, router)


def is_between(first: str, one: str, last: str) -> bool:
    """Whether an address is in a range, both ends included."""
    return IPv4Address(first) <= IPv4Address(one) <= IPv4Address(last)


def invalid(field: str, message: Any, *, code: str = "invalid") -> Invalid:
    """A problem with one field."""
    return Invalid(message, code=code, errors={field: [message]})


def _subnet(first: IPv4Address, prefix: int | None, netmask: str) -> IPv4Network:
    field = "netmask" if netmask else "prefix"
    if not netmask and prefix is None:
        raise invalid("prefix", _("Say how large the subnet is: a prefix, as 24, or a netmask."))
    try:
        subnet = IPv4Network(f"{first}/{netmask or prefix}", strict=False)
    except ValueError:
        raise invalid(field, _("This is not the size of a subnet.")) from None
    if not 8 <= subnet.prefixlen <= 30:
        raise invalid(field, _("A subnet is between /8 and /30."))
    return subnet


def _expect_host_of(subnet: IPv4Network, one: IPv4Address, field: str) -> None:
    if one not in subnet:
        raise invalid(field, _("%(ip)s is not in the subnet %(subnet)s.") % {"ip": one, "subnet": subnet})
    if one in (subnet.network_address, subnet.broadcast_address):
        raise invalid(field, _("%(ip)s is the network's own or its broadcast address.") % {"ip": one})
    if one.is_multicast or one.is_loopback or one.is_unspecified or one.is_link_local:
        raise invalid(field, _("%(ip)s cannot be a guest's address.") % {"ip": one})
