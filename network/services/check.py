"""What is known of an address before one chooses it (M14): range, holder, and who answers on the wire."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from cloud.common.actor import Actor
from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.config.services import value
from cloud.infra.models import Host
from cloud.jobs import agents
from network.messages import ProbeAddress, ProbedAddress
from network.models import AddressPurpose, IpAddress, L3Network
from network.services import addresses, ipv4

# The agent listens for the setting's time; the way there and back takes the rest.
_WAY_S = 1.0


@dataclass(frozen=True)
class AddressReport:
    """What is known of an address; `reason` is for people.

    `is_available`: it can be chosen. `used_by` is {purpose, uuid, name} or None; what others have stays unnamed.
    `is_answering` is None when nobody could be asked; `macs` are those who answered.
    """

    ip: str
    is_in_range: bool
    is_reserved: bool
    is_available: bool
    used_by: dict[str, Any] | None
    is_answering: bool | None
    macs: list[str]
    reason: str
    next_free: str | None


def address(l3: L3Network, ip: str, *, actor: Actor, is_probed: bool = True) -> AddressReport:
    """Look at one address of the network; nothing is taken. Raises Invalid when `ip` is no IPv4 address."""
    actor.require("l3_network.view", l3)
    wanted = str(ipv4.address(ip, "ip"))
    is_in_range = l3.ranges.filter(start__lte=wanted, end__gte=wanted).exists()
    row = IpAddress.objects.filter(l3=l3, address=wanted).first()
    macs = _ask(l3, wanted) if is_probed else None
    own = row is not None and row.purpose in (AddressPurpose.NIC, AddressPurpose.DHCP)
    # An address that is free here but answers there belongs to a machine that the platform does not know.
    is_foreign = bool(macs) and not own
    return AddressReport(
        ip=wanted,
        is_in_range=is_in_range,
        is_reserved=row is not None and row.purpose == AddressPurpose.RESERVED,
        is_available=is_in_range and row is None and not is_foreign,
        used_by=addresses.used_by(row, actor) if row is not None else None,
        is_answering=None if macs is None else bool(macs),
        macs=macs or [],
        reason=_reason(is_in_range, row, is_foreign),
        next_free=addresses.next_free(l3),
    )


def _reason(is_in_range: bool, row: IpAddress | None, is_foreign: bool) -> str:
    if row is not None:
        return {
            AddressPurpose.NIC: _("It is used by an instance."),
            AddressPurpose.DHCP: _("It is the DHCP server's."),
            AddressPurpose.GATEWAY: _("It is the gateway's."),
            AddressPurpose.RESERVED: _("It is reserved."),
        }[AddressPurpose(row.purpose)]
    if not is_in_range:
        return _("It is in no IP range of this network.")
    if is_foreign:
        return _("A machine that the platform does not know answers for it.")
    return _("It is free.")


def _ask(l3: L3Network, ip: str) -> list[str] | None:
    hosts = Host.objects.filter(cluster__l2_attachments__l2=l3.l2_id, connection=Connection.CONNECTED)
    host = hosts.exclude(agent=None).first()
    if host is None or host.agent_id is None:
        return None
    timeout_s = float(value("network.probe_timeout"))
    try:
        question = ProbeAddress(str(l3.l2_id), ip, timeout_s)
        return ProbedAddress.from_document(agents.ask(host.agent_id, question, timeout_s + _WAY_S)).macs
    except Problem:
        return None
