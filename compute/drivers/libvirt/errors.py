"""libvirt's errors as the driver contract's; nowhere else is a libvirtError read.

https://libvirt.org/html/libvirt-virterror.html
"""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from cloud.common.driver import DriverError, NotFound, Rejected, Transient, Unsupported

_TRANSIENT = {
    libvirt.VIR_ERR_NO_CONNECT: "hypervisor_unreachable",
    libvirt.VIR_ERR_INVALID_CONN: "hypervisor_unreachable",
    libvirt.VIR_ERR_RPC: "hypervisor_unreachable",
    libvirt.VIR_ERR_LIBSSH: "hypervisor_unreachable",
    libvirt.VIR_ERR_OPERATION_TIMEOUT: "hypervisor_busy",
    libvirt.VIR_ERR_RESOURCE_BUSY: "hypervisor_busy",
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "guest_agent_silent",
    libvirt.VIR_ERR_AGENT_UNSYNCED: "guest_agent_silent",
}
_UNSUPPORTED = {
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
}
_BROKEN_LINK = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}

# What QEMU or the kernel says in an internal error, and what it means for the user.
_TELLING: tuple[tuple[str, str, type[DriverError]], ...] = (
    ("cannot set up guest memory", "host_out_of_memory", Rejected),
    ("Cannot allocate memory", "host_out_of_memory", Rejected),
    ('Failed to get "write" lock', "volume_in_use", Rejected),
    ("No such file or directory", "file_missing", Rejected),
    ("Cannot get interface MTU", "bridge_missing", Transient),
    ("Could not open '/dev/vhost-net'", "host_lacks_vhost", Unsupported),
)


@contextmanager
def translated() -> Iterator[None]:
    """Run libvirt calls; what they raise comes out as a DriverError."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error) from error


def translate(error: libvirt.libvirtError) -> DriverError:
    """The DriverError that means the same; the text is libvirt's own, for a person."""
    code, domain, detail = error.get_error_code(), error.get_error_domain(), str(error)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFound("domain_not_found", detail)
    if code in _TRANSIENT:
        return Transient(_TRANSIENT[code], detail)
    if domain in _BROKEN_LINK and code in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR):
        return Transient("hypervisor_unreachable", detail)
    for words, name, kind in _TELLING:
        if words in detail:
            return kind(name, detail)
    if code in _UNSUPPORTED:
        return Unsupported("hypervisor_cannot", detail)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return Rejected("domain_state", detail)
    return DriverError("hypervisor_failed", detail)
