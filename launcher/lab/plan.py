"""The lab on paper: which places there are, how they are wired and addressed. Nothing here touches the machine."""

from __future__ import annotations

from dataclasses import dataclass

MANAGEMENT_ADDRESS = "10.99.0.1"
MANAGEMENT_NETWORK = "10.99.0.0/24"
VTEP_NETWORK = "10.99.1.0/24"
PROVIDER_NETWORK = "203.0.113.0/24"
OUTSIDE_ADDRESS = "203.0.113.1"
# Chosen here, not in the database: these folders exist on each lab machine of the kind.
PRIMARY_STORAGE_PATH = "/srv/primary"
IMAGES_PATH = "/srv/images"

BRIDGES = ("management", "vtep", "provider")


@dataclass(frozen=True)
class Cable:
    """A network card of a place, wired to a bridge of the underlay; `address` in CIDR form or empty."""

    interface: str
    bridge: str
    address: str = ""


@dataclass(frozen=True)
class Place:
    """A network namespace of the lab and its network cards."""

    name: str
    cables: tuple[Cable, ...]


@dataclass(frozen=True)
class MachinePlan(Place):
    """A place that is a machine of its own: processes, mounts, host name. `kind` is `host` or `image_server`."""

    kind: str = "host"

    @property
    def address(self) -> str:
        """Its address on the management network."""
        return self.cables[0].address.partition("/")[0]

    @property
    def is_host(self) -> bool:
        return self.kind == "host"


def _host(number: int) -> MachinePlan:
    return MachinePlan(
        name=f"host-{number}",
        cables=(
            Cable("eth0", "management", f"10.99.0.{10 + number}/24"),
            Cable("eth1", "vtep", f"10.99.1.{10 + number}/24"),
            Cable("eth2", "provider"),
        ),
    )


UNDERLAY = "underlay"
MANAGEMENT = Place("mgmt", (Cable("eth0", "management", f"{MANAGEMENT_ADDRESS}/24"),))
OUTSIDE = Place("outside", (Cable("eth0", "provider", f"{OUTSIDE_ADDRESS}/24"),))
STORAGE = MachinePlan(
    name="storage",
    cables=(Cable("eth0", "management", "10.99.0.21/24"), Cable("eth1", "provider", "203.0.113.21/24")),
    kind="image_server",
)
MACHINES = (_host(1), _host(2), STORAGE)
PLACES: tuple[Place, ...] = (MANAGEMENT, OUTSIDE, *MACHINES)
