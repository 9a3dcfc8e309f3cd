"""Which domains are ours: their marks, read once and kept until libvirt says that the domain was redefined."""

import threading
from typing import Any

import libvirt

from compute.drivers.libvirt import metadata
from compute.drivers.libvirt.metadata import Mark

_UNMARKED = {libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_SUPPORT}


class Marks:
    """A cache of marks by domain uuid; None stands for a foreign domain."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Mark | None] = {}

    def of(self, domain: Any) -> Mark | None:
        """The domain's mark, None when it is not ours or gone before it was ever seen."""
        uuid = domain.UUIDString()
        with self._lock:
            if uuid in self._known:
                return self._known[uuid]
        return self.refresh(domain)

    def refresh(self, domain: Any) -> Mark | None:
        """The mark read anew, after the domain was defined; that of a domain already gone is what was last known."""
        uuid = domain.UUIDString()
        try:
            mark = metadata.read(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata.NAMESPACE))
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _UNMARKED:
                raise
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                with self._lock:
                    return self._known.get(uuid)
            mark = None
        with self._lock:
            self._known[uuid] = mark
        return mark

    def forget(self, uuid: str) -> None:
        with self._lock:
            self._known.pop(uuid, None)

    def clear(self) -> None:
        """After a reconnection: what was redefined meanwhile was not heard of."""
        with self._lock:
            self._known.clear()
