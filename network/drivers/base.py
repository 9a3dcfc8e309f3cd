"""What a network driver must do. A driver knows one machine; it is told everything and keeps nothing of its own.

Both `converge` acts take the whole wanted state and bring the machine to it: what is missing is made, what drifted is
mended, what is no longer wanted is removed where its name shows that it is ours. Twice is once.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from cloud.common.driver import DriverError
from network.messages import DhcpDesired, NetworksDesired, SeenNetworks


class NetworkDriver(ABC):
    """The networks of one machine.

    Errors: Transient (worth another try), Rejected (the administrator's to mend), Unsupported (the machine cannot),
    NotFound. One network's failure does not keep the others from being converged: `SomeFailed` tells which did.
    """

    @abstractmethod
    def converge_networks(self, wanted: NetworksDesired) -> list[str]:
        """Bring bridges, uplinks and VTEP peers to the wanted state. Returns the changes made, in words."""

    @abstractmethod
    def converge_dhcp(self, wanted: DhcpDesired) -> list[str]:
        """Bring the DHCP servers to the wanted state. Returns the changes made, in words."""

    @abstractmethod
    def probe(self, l2: str, ip: str, timeout_s: float) -> list[str]:
        """The MAC addresses that claim `ip` on the L2 network. Raises NotFound when the host does not have it."""

    @abstractmethod
    def connect(self, l3: str, ip: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection to an address of the L3 network, made from within it.

        Raises NotFound when the network is not on this host, Transient when nobody answers.
        """

    @abstractmethod
    def seen(self) -> SeenNetworks:
        """What of ours there is, by its names, wanted or not."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an interface or namespace of ours that nobody wants; absent is fine.

        Raises Rejected: `not_ours` by its name, `in_use` while a guest is behind it.
        """


class SomeFailed(DriverError):
    """Some networks could not be served, all others are: `parts` maps what failed, by uuid, to its error.

    Code and nature are those of the first one.
    """

    def __init__(self, parts: dict[str, DriverError]) -> None:
        first = next(iter(parts.values()))
        super().__init__(first.code, "; ".join(f"{name}: {each.detail}" for name, each in parts.items()))
        self.nature = first.nature
        self.parts = parts


class Failures:
    """Collects what went wrong with single networks, so that the others are still served."""

    def __init__(self) -> None:
        self._errors: dict[str, DriverError] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Keep a DriverError of this network (its uuid) or leftover (its interface) for later."""
        try:
            yield
        except DriverError as error:
            self._errors.setdefault(name, error)

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, others: "Failures") -> None:
        """Keep these too; what is known already stays as it is."""
        self._errors = others._errors | self._errors

    def tell(self) -> None:
        """Raise SomeFailed with all of them; nothing when all went well."""
        if self._errors:
            raise SomeFailed(self._errors)
