"""Whom this machine refuses, whatever certificate they show: the section `revoked`, kept across restarts."""

import json
import logging
import os
import ssl
import threading
from pathlib import Path

from cloud.common.driver import Rejected

log = logging.getLogger(__name__)


class Peers:
    """The serial numbers of revoked certificates, as told last; `path` is where they are kept."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            self._revoked = frozenset(str(serial) for serial in json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            self._revoked = frozenset()

    def revoke(self, serials: list[str]) -> None:
        """From now on exactly these are refused."""
        with self._lock:
            told = frozenset(serials)
            if told == self._revoked:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(sorted(told)))
            os.replace(partial, self._path)
            self._revoked = told
        log.info("%d certificates are refused", len(told))

    def expect_welcome(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Raise Rejected when the other end of a TLS connection shows a revoked certificate."""
        shown = connection.getpeercert() or {}
        serial = str(shown.get("serialNumber", "")).lower().lstrip("0")
        if serial in self._revoked:
            raise Rejected("certificate_revoked", f"The certificate {serial} was revoked.")
