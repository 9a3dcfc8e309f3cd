"""The one place where the kernel's errors become the driver's."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2.netlink.exceptions import NetlinkError

from cloud.common.driver import DriverError, NotFound, Rejected, Transient, Unsupported

_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH)
_BUSY = (errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOBUFS, errno.EINTR)


def translate(error: Exception, act: str) -> DriverError:
    """The driver's error for a failed netlink or system call; `act` says what was tried."""
    code = error.code if isinstance(error, NetlinkError) else getattr(error, "errno", 0) or 0
    detail = f"{act}: {error.args[-1] if error.args else error} ({errno.errorcode.get(code, code)})"
    if code == errno.EOPNOTSUPP:
        return Unsupported("kernel_lacks_support", detail)
    if code in _GONE:
        return NotFound("not_found", detail)
    if code in _BUSY:
        return Transient("busy", detail)
    if code in (errno.EINVAL, errno.ERANGE, errno.EADDRNOTAVAIL):
        return Rejected("kernel_refused", detail)
    return DriverError("kernel_error", detail)


@contextmanager
def told(act: str) -> Iterator[None]:
    """Translate the native errors of the block; `act` says in words what it does."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise translate(error, act) from error
