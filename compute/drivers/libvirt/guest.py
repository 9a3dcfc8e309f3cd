"""The agent inside the guest: asking it to switch off, and who it says it is.

https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html
"""

import contextlib
import ipaddress
import json
from typing import Any, Literal

import libvirt
import libvirt_qemu

from compute.messages import GuestInfo

ANSWER_LIMIT_S = 4
PING_LIMIT_S = 2
_WHAT = (
    libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME | libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES
)


def request_power(domain: Any, mode: Literal["powerdown", "reboot"]) -> bool:
    """Ask the agent to switch off or restart; whether there is one that listens.

    It does not answer when it obeys: success shows in the domain's state only.
    """
    command = json.dumps({"execute": "guest-shutdown", "arguments": {"mode": mode}})
    try:
        libvirt_qemu.qemuAgentCommand(domain, json.dumps({"execute": "guest-ping"}), PING_LIMIT_S, 0)
    except libvirt.libvirtError:
        return False
    with contextlib.suppress(libvirt.libvirtError):
        libvirt_qemu.qemuAgentCommand(domain, command, PING_LIMIT_S, 0)
    return True


def info(domain: Any) -> GuestInfo:
    """What the agent says; `agent_answers` is false when there is none or it is silent for ANSWER_LIMIT_S."""
    try:
        domain.agentSetResponseTimeout(ANSWER_LIMIT_S, 0)
        return parse(domain.guestInfo(_WHAT, 0))
    except libvirt.libvirtError:
        return GuestInfo(agent_answers=False)


def parse(answer: dict[str, Any]) -> GuestInfo:
    """The typed parameters of virDomainGetGuestInfo."""
    addresses = []
    for card in range(int(answer.get("if.count", 0))):
        for index in range(int(answer.get(f"if.{card}.addr.count", 0))):
            text = str(answer.get(f"if.{card}.addr.{index}.addr", ""))
            if _is_own(text):
                addresses.append(text)
    return GuestInfo(
        agent_answers=True,
        hostname=str(answer.get("hostname", "")),
        addresses=tuple(addresses),
        os=str(answer.get("os.pretty-name") or answer.get("os.name") or ""),
    )


def _is_own(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
