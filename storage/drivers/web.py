"""Fetching a file by http or https from an address that a guard has checked.

The connection goes to the checked address; Host header and certificate check keep the name. Each redirect is a new
address, checked anew. Source: RFC 9110.
"""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from cloud.common.driver import DriverError, Rejected, Transient
from storage.drivers.guard import Guard

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class WebBody:
    """The answer's bytes, as `base.Body`. Raises Transient when the server breaks off or stops sending."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.size_bytes: int | None = response.length

    def chunks(self) -> Iterator[bytes]:
        got = 0
        while True:
            try:
                chunk = self._response.read1(CHUNK_BYTES)
            except TimeoutError as error:
                raise Transient("server_silent", f"The server sent nothing for {READ_TIMEOUT_S:.0f} s.") from error
            except (OSError, http.client.HTTPException) as error:
                raise Transient("connection_broken", f"The connection broke off after {got} bytes: {error}") from error
            if not chunk:
                break
            got += len(chunk)
            yield chunk
        if self.size_bytes is not None and got != self.size_bytes:
            raise Transient("connection_broken", f"The server sent {got} of {self.size_bytes} bytes.")


@contextmanager
def fetch(url: str, guard: Guard, tls: ssl.SSLContext | None = None) -> Iterator[WebBody]:
    """Open `url` for reading, following at most five redirects.

    Raises Rejected (`url_refused`, `address_refused`, `name_unknown`, `http_status`, `too_many_redirects`,
    `certificate_refused`) or Transient (`server_unreachable`, `connection_broken`).
    """
    for _turn in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        connection, response = _get(parts, guard, tls)
        try:
            if response.status in _REDIRECTS:
                url = _redirected(parts, url, response)
                continue
            if response.status != 200:
                kind = Transient if response.status in _TRANSIENT else Rejected
                raise kind("http_status", f"{parts.hostname} answers {response.status} {response.reason}.")
            if response.getheader("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise Rejected(
                    "content_encoded", f"{parts.hostname} sends the file encoded, though that was not asked."
                )
            yield WebBody(response)
            return
        finally:
            response.close()
            connection.close()
    raise Rejected("too_many_redirects", f"More than {MAX_REDIRECTS} redirects.")


def _redirected(parts: SplitResult, url: str, response: http.client.HTTPResponse) -> str:
    target = response.getheader("Location")
    if not target:
        raise Rejected("http_status", f"{parts.hostname} redirects without saying where to.")
    target = urljoin(url, target)
    if parts.scheme == "https" and urlsplit(target).scheme == "http":
        raise Rejected("url_refused", "The server redirects from https to http.")
    return target


def _checked(url: str) -> SplitResult:
    """The parts of an address that may be fetched. Raises Rejected `url_refused`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected("url_refused", f"The address cannot be read: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise Rejected("url_refused", f"Images are fetched by http or https, not by {parts.scheme or 'nothing'}.")
    if not parts.hostname or parts.username is not None or parts.password is not None or port == 0:
        raise Rejected("url_refused", "The address needs a host and must not hold a user or password.")
    if any(ord(letter) <= 32 or ord(letter) >= 127 for letter in url):
        raise Rejected("url_refused", "The address holds characters that must be percent-encoded.")
    return parts


def _get(
    parts: SplitResult, guard: Guard, tls: ssl.SSLContext | None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    plain = _connect(parts.hostname, port, guard)
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=READ_TIMEOUT_S)
    try:
        if parts.scheme == "https":
            context = tls or ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=parts.hostname)
        else:
            connection.sock = plain
        connection.sock.settimeout(READ_TIMEOUT_S)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", parts.netloc)
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "Mica")
        connection.putheader("Connection", "close")
        connection.endheaders()
        return connection, connection.getresponse()
    except BaseException as error:
        plain.close()
        connection.close()
        if translated := _translated(parts.hostname, error):
            raise translated from error
        raise


def _connect(host: str, port: int, guard: Guard) -> socket.socket:
    """A connection to the first checked address that answers."""
    last: OSError | None = None
    for address in guard.addresses(host, port):
        try:
            return socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            last = error
    raise Transient("server_unreachable", f"{host} port {port} cannot be reached: {last}") from last


def _translated(host: str, error: BaseException) -> DriverError | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Rejected("certificate_refused", f"The certificate of {host} is not trusted: {error.verify_message}")
    if isinstance(error, (OSError, http.client.HTTPException)):
        return Transient("connection_broken", f"{host} broke off the talk: {error}")
    return None
