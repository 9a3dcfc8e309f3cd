"""A connection to libvirtd that comes back: keepalive, and a new one within a second when the daemon was restarted."""

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from cloud.common.driver import DriverError, Transient
from compute.drivers.libvirt import events

log = logging.getLogger(__name__)

KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 5, 3
RETRY_S = 0.5
PATIENCE_S = 5.0
CHECK_S = 5.0


class Connection:
    """Keeps one libvirt connection open; `prepare` is called with each new one, before anybody else gets it."""

    def __init__(self, uri: str, prepare: Callable[[Any], None]) -> None:
        self._uri = uri
        self._prepare = prepare
        self._changed = threading.Condition()
        self._connection: Any = None
        self._is_closed = False
        self._failure = "not tried yet"
        self._thread = threading.Thread(target=self._keep, name="libvirt-connection", daemon=True)

    def start(self) -> None:
        events.run_loop()
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def get(self, patience_s: float = PATIENCE_S) -> Any:
        """The open connection, waited for if it is just being made. Raises Transient (`hypervisor_unreachable`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._connection is not None or self._is_closed, patience_s)
            if self._connection is not None:
                return self._connection
            detail = f"libvirt ({self._uri}) does not answer: {self._failure}"
        raise Transient("hypervisor_unreachable", detail)

    def _keep(self) -> None:
        while not self._is_closed:
            try:
                connection = self._open()
            except (libvirt.libvirtError, DriverError) as error:
                self._note(str(error))
                # There is no event for a daemon that starts: try, jittered.
                self._wait(RETRY_S * random.uniform(0.6, 1.0))  # noqa: S311 (no secret)
                continue
            log.info("connected to libvirt at %s", self._uri)
            with self._changed:
                self._connection, self._failure = connection, ""
                self._changed.notify_all()
            self._stay(connection)
            self._let_go(connection)

    def _stay(self, connection: Any) -> None:
        """Return when the connection is over; a look at it now and then, as it may have broken while being prepared."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._connection is None or self._is_closed, CHECK_S):
                    self._connection = None
                    return
            if not _is_alive(connection):
                self._on_close(connection, -1, None)

    def _open(self) -> Any:
        connection = libvirt.open(self._uri)
        try:
            self._prepare(connection)
            connection.registerCloseCallback(self._on_close, None)
            with contextlib.suppress(libvirt.libvirtError):  # the mock has no link to keep alive
                connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        except BaseException:
            self._let_go(connection)
            raise
        return connection

    def _on_close(self, connection: Any, reason: int, opaque: object) -> None:
        with self._changed:
            if self._connection is not None and not self._is_closed:
                log.warning("the connection to libvirt was lost (reason %s)", reason)
                self._failure = "the connection was lost"
            self._connection = None
            self._changed.notify_all()

    def _note(self, failure: str) -> None:
        with self._changed:
            if failure != self._failure:
                log.warning("libvirt at %s cannot be reached: %s", self._uri, failure)
            self._failure = failure

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, seconds)

    def _let_go(self, connection: Any) -> None:
        for part in (connection.unregisterCloseCallback, connection.close):
            with contextlib.suppress(libvirt.libvirtError):
                part()


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
