"""Switching domains off and over, gracefully first. Functions on a libvirt domain; callers translate errors."""

import time
from collections.abc import Callable
from typing import Any

import libvirt

from compute.drivers.base import Watch
from compute.drivers.libvirt import guest
from compute.drivers.patience import Pulse

# A guest that is still booting does not hear the power button: it is pressed again.
PRESS_AGAIN_S = 5.0


def is_off(domain: Any) -> bool:
    """Whether the domain does not run; also when it is gone."""
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return True
        raise


def shut_down(domain: Any, grace_s: float, pulse: Pulse, watch: Watch) -> bool:
    """Ask the guest's agent, then press the power button until it is off; whether it was within `grace_s`."""
    return _coax(
        off=lambda: is_off(domain),
        ask=lambda: guest.request_power(domain, "powerdown"),
        press=lambda: _press(domain),
        grace_s=grace_s,
        pulse=pulse,
        watch=watch,
    )


def restart(domain: Any, grace_s: float, restarts: Callable[[], int], pulse: Pulse, watch: Watch) -> bool:
    """Ask the guest to restart; whether it did within `grace_s`. One that switched itself off instead counts.

    `restarts` counts the domain's restarts so far.
    """
    before = restarts()
    return _coax(
        off=lambda: restarts() > before or is_off(domain),
        ask=lambda: guest.request_power(domain, "reboot"),
        press=lambda: _press_restart(domain),
        grace_s=grace_s,
        pulse=pulse,
        watch=watch,
    )


def force_off(domain: Any) -> None:
    """Pull the plug; off or gone already is fine."""
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and is_off(domain):
            return
        raise


def _coax(
    *,
    off: Callable[[], bool],
    ask: Callable[[], bool],
    press: Callable[[], None],
    grace_s: float,
    pulse: Pulse,
    watch: Watch,
) -> bool:
    """Ask the agent; where there is none, or nothing has come of it in half of the time, press the button."""
    began = time.monotonic()
    deadline = began + grace_s
    if ask() and pulse.wait_until(off, began + grace_s / 2, watch):
        return True
    while time.monotonic() < deadline:
        if off():
            return True
        press()
        if pulse.wait_until(off, min(deadline, time.monotonic() + PRESS_AGAIN_S), watch):
            return True
    return off()


def _press(domain: Any) -> None:
    _unless_off(domain, lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), domain.shutdown)


def _press_restart(domain: Any) -> None:
    press = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    _unless_off(domain, lambda: domain.reboot(press), lambda: domain.reboot(0))


def _unless_off(domain: Any, act: Callable[[], Any], plain: Callable[[], Any]) -> None:
    """Do it, the plain way where a driver takes no flags; a domain that went off in between is no error."""
    try:
        try:
            act()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
                raise
            plain()
    except libvirt.libvirtError:
        if not is_off(domain):
            raise
