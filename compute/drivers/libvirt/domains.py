"""Finding domains on a connection, and telling ours from foreign ones. Callers translate errors."""

from typing import Any

import libvirt

from cloud.common.driver import NotFound, Rejected
from compute.drivers.base import domain_not_found
from compute.drivers.libvirt import lifecycle, power
from compute.drivers.libvirt.errors import translate
from compute.drivers.libvirt.marks import Marks
from compute.messages import DomainSummary, PowerState


def find(connection: Any, uuid: str) -> Any:
    """The domain, None when there is none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if isinstance(translate(error), NotFound):
            return None
        raise


def find_ours(connection: Any, uuid: str, marks: Marks) -> Any:
    """The domain, None when there is none. Raises Rejected (`domain_not_ours`) for a foreign one."""
    domain = find(connection, uuid)
    if domain is not None and marks.of(domain) is None:
        detail = f"The domain {domain.name()} was not made by Mica: it is left alone."
        raise Rejected("domain_not_ours", detail)
    return domain


def get_ours(connection: Any, uuid: str, marks: Marks) -> Any:
    """The domain. Raises NotFound, and Rejected for a foreign one."""
    domain = find_ours(connection, uuid, marks)
    if domain is None:
        raise domain_not_found(uuid)
    return domain


def state(domain: Any) -> PowerState:
    return lifecycle.state(domain.state()[0])


def summary(domain: Any, marks: Marks) -> DomainSummary | None:
    """The domain in an inventory, None when it is gone since it was listed."""
    try:
        seen = state(domain)
        mark = marks.of(domain)
    except libvirt.libvirtError as error:
        if isinstance(translate(error), NotFound):
            return None
        raise
    return DomainSummary(domain.UUIDString(), mark.name if mark else domain.name(), seen, mark is not None)


def wake(domain: Any) -> PowerState:
    """Bring a domain that is neither off nor running to one of both; its state then."""
    seen = state(domain)
    if seen == "paused":
        domain.resume()
    elif seen == "suspended":
        domain.pMWakeup(0)
    elif seen == "crashed":
        power.force_off(domain)
        return "stopped"
    else:
        return seen
    return "running"
