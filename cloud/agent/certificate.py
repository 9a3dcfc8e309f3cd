"""The machine's certificate, renewed by itself when two thirds of its life are over.

The key stays, so that one rename puts the new certificate in force. Redis and the metric store are shown it at the next
connection, the stream door from the next stream on: nothing that is open breaks.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from cloud.agent.config import AgentConfig
from cloud.common import pki
from cloud.common.driver import Rejected

log = logging.getLogger(__name__)

RESOURCE = "certificate"
LOOK_EVERY_S = 600.0
ASK_EVERY_S = 60.0
_SPENT = 2 / 3

Ask = Callable[[str, str], None]


class OwnCertificate:
    """Watches over the certificate beside agent.json; `ask` is given a request (PEM) and the serial held."""

    def __init__(self, config: AgentConfig, ask: Ask, now: Callable[[], float] = time.time) -> None:
        self._config, self._ask, self._now = config, ask, now
        self._installed: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._stopping = threading.Event()

    def on_installed(self, function: Callable[[], None]) -> None:
        """Have this called after each change of the file."""
        self._installed.append(function)

    def start(self) -> None:
        threading.Thread(target=self._work, name="certificate", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def is_due(self) -> bool:
        """Whether it is time for a new one."""
        begins, ends = (moment.timestamp() for moment in pki.lifetime(self._held()))
        return self._now() >= begins + (ends - begins) * _SPENT

    def look(self) -> bool:
        """Ask for a new certificate when it is time, at most once a minute. Returns whether it is time."""
        if not self.is_due():
            return False
        with self._lock:
            if time.monotonic() - self._asked_at < ASK_EVERY_S:
                return True
            self._asked_at = time.monotonic()
        serial = pki.serial_of(self._held().serial_number)
        self._ask(pki.request(self._config.key, self._config.uuid), serial)
        log.info("a new certificate is asked for in place of %s", serial)
        return True

    def install(self, pem: str) -> None:
        """Put a certificate in force. Raises Rejected unless it is of this machine's key and name, and of its CA."""
        if self._config.certificate.read_text() == pem:
            return
        expect_own(pem, self._config)
        _replace(self._config.certificate, pem)
        with self._lock:
            self._asked_at = float("-inf")
        log.info("a new certificate is in force")
        for function in self._installed:
            function()

    def _held(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._config.certificate.read_bytes())

    def _work(self) -> None:
        pause = 1.0
        while not self._stopping.wait(pause):
            try:
                pause = ASK_EVERY_S if self.look() else LOOK_EVERY_S
            except Exception:
                log.exception("the certificate cannot be looked at")
                pause = ASK_EVERY_S


def expect_own(pem: str, config: AgentConfig) -> None:
    """Raise Rejected for a certificate that this machine could not show to anybody."""
    try:
        offered = x509.load_pem_x509_certificate(pem.encode())
        authority = x509.load_pem_x509_certificate(config.ca.read_bytes())
        key = serialization.load_pem_private_key(config.key.read_bytes(), password=None)
    except (ValueError, OSError) as error:
        raise Rejected("certificate_unreadable", f"The certificate cannot be used: {error}") from error
    names = [str(name.value) for name in offered.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [config.uuid] or offered.issuer != authority.subject:
        raise Rejected("certificate_of_another", f"It is for {', '.join(names)}, and not of this platform's CA for us.")
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if offered.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise Rejected("certificate_of_another", "It is for another key.")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o644)
    os.replace(partial, path)
