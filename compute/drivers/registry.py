"""The hypervisors there are; a driver's own library is imported when it is chosen, not before."""

from pathlib import Path

from cloud.agent.clockwork import Clockwork
from cloud.common.driver import Unsupported
from cloud.common.faults import Faults
from compute.drivers.base import Hypervisor


def create(
    name: str, *, state_dir: Path, run_dir: Path, clockwork: Clockwork | None = None, faults: Faults | None = None
) -> Hypervisor:
    """The driver `name` (`libvirt` or `fake`), not opened yet; `faults` are those of a simulated machine.

    Raises Unsupported when its library is not on this machine, or there is no such driver.
    """
    if name == "fake":
        from compute.drivers.fake import FakeHypervisor

        return FakeHypervisor(clockwork, faults)
    if name == "libvirt":
        try:
            from compute.drivers.libvirt.driver import LibvirtHypervisor
        except ImportError as error:
            detail = f"The Python binding of libvirt is missing ({error}): install python3-libvirt."
            raise Unsupported("no_libvirt", detail) from error
        return LibvirtHypervisor(state_dir, run_dir)
    raise Unsupported("no_such_hypervisor", f"There is no hypervisor driver {name}.")
