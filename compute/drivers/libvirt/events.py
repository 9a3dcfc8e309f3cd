"""libvirt's event loop: one for a process, running before the first connection is opened.

Callbacks come on its thread, where a call back into libvirt could wait for itself: they only put what they heard on a
Dispatcher.
https://libvirt.org/html/libvirt-libvirt-event.html
"""

import logging
import threading

import libvirt

log = logging.getLogger(__name__)

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def run_loop() -> None:
    """Have libvirt's event loop running and its errors off stderr (they are raised as well). Twice is fine."""
    global _loop
    with _loop_lock:
        if _loop is None:
            libvirt.registerErrorHandler(_silent, None)
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_turn, name="libvirt-events", daemon=True)
            _loop.start()


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt's event loop stumbled")


def _silent(context: object, error: object) -> None:
    """Error handler that says nothing."""
