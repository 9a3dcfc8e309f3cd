"""The facts of networks: L2 and L3 networks, their address ranges, addresses and NICs."""

from network.models.l2 import L2Attachment, L2Kind, L2Network, VniRange, Vtep
from network.models.l3 import AddressPurpose, IpAddress, IpRange, L3Kind, L3Network, Nic

__all__ = [
    "AddressPurpose",
    "IpAddress",
    "IpRange",
    "L2Attachment",
    "L2Kind",
    "L2Network",
    "L3Kind",
    "L3Network",
    "Nic",
    "VniRange",
    "Vtep",
]
