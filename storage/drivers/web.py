"""Fetching a file by http or https from an address that a guard has checked.

The connection goes to the checked address; Host header and certificate check keep the name. Each redirect is a new
address, checked anew. Server and URL are a stranger's: `line` keeps them from holding us, `_legible` what they say from
hurting who reads it. Source: RFC 9110.
"""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from cloud.common.driver import DriverError, Rejected, Transient
from storage.drivers import line
from storage.drivers.base import Watch
from storage.drivers.guard import Guard
from storage.drivers.line import Line, Patience

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20
LONGEST_WORDS = 200
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class WebBody:
    """The answer's bytes, as `base.Body`.

    Raises Transient when the server breaks off, stops sending or hardly sends, Aborted when the work is cancelled.
    """

    def __init__(self, response: http.client.HTTPResponse, patience: Patience) -> None:
        self._response, self._patience = response, patience
        self.size_bytes: int | None = response.length

    def chunks(self) -> Iterator[bytes]:
        got = 0
        while True:
            self._patience.resume()
            try:
                chunk = self._response.read1(CHUNK_BYTES)
            except TimeoutError as error:
                raise _silent() from error
            except (OSError, http.client.HTTPException) as error:
                raise Transient(
                    "connection_broken", f"The connection broke off after {got} bytes: {_legible(error)}"
                ) from error
            self._patience.pause(len(chunk))
            if not chunk:
                break
            got += len(chunk)
            yield chunk
        if self.size_bytes is not None and got != self.size_bytes:
            raise Transient("connection_broken", f"The server sent {got} of {self.size_bytes} bytes.")


@contextmanager
def fetch(url: str, guard: Guard, watch: Watch, tls: ssl.SSLContext | None = None) -> Iterator[WebBody]:
    """Open `url` for reading, following at most five redirects.

    Raises Rejected (`url_refused`, `address_refused`, `name_unknown`, `http_status`, `too_many_redirects`,
    `certificate_refused`), Transient (`server_unreachable`, `server_silent`, `server_too_slow`, `connection_broken`) or
    Aborted, within a second of the abort.
    """
    patience = Patience(watch)
    for _turn in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        connection, response = _get(parts, guard, patience, tls)
        try:
            if response.status in _REDIRECTS:
                url = _redirected(parts, url, response)
                continue
            if response.status != 200:
                kind = Transient if response.status in _TRANSIENT else Rejected
                said = f"{response.status} {_legible(response.reason)}".strip()
                raise kind("http_status", f"{parts.hostname} answers {said}.")
            if response.getheader("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise Rejected(
                    "content_encoded", f"{parts.hostname} sends the file encoded, though that was not asked."
                )
            yield WebBody(response, patience)
            return
        finally:
            response.close()
            connection.close()
    raise Rejected("too_many_redirects", f"More than {MAX_REDIRECTS} redirects.")


def _redirected(parts: SplitResult, url: str, response: http.client.HTTPResponse) -> str:
    target = response.getheader("Location")
    if not target:
        raise Rejected("http_status", f"{parts.hostname} redirects without saying where to.")
    try:
        target = urljoin(url, target)
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise Rejected("url_refused", f"{parts.hostname} redirects to what is no address: {_legible(error)}") from error
    if parts.scheme == "https" and scheme == "http":
        raise Rejected("url_refused", "The server redirects from https to http.")
    return target


def _checked(url: str) -> SplitResult:
    """The parts of an address that may be fetched. Raises Rejected `url_refused`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected("url_refused", f"The address cannot be read: {_legible(error)}") from error
    if any(ord(letter) <= 32 or ord(letter) >= 127 for letter in url):
        raise Rejected("url_refused", "The address holds characters that must be percent-encoded.")
    if parts.scheme not in ("http", "https"):
        raise Rejected("url_refused", f"Images are fetched by http or https, not by {parts.scheme or 'nothing'}.")
    if not parts.hostname or parts.username is not None or parts.password is not None or port == 0:
        raise Rejected("url_refused", "The address needs a host and must not hold a user or password.")
    return parts


def _get(
    parts: SplitResult, guard: Guard, patience: Patience, tls: ssl.SSLContext | None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """The answer to one request, its headers read, and the connection that its body comes by."""
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    link: Any = _connected(parts.hostname, port, guard, patience)
    connection = http.client.HTTPConnection(parts.hostname, port)
    try:
        if parts.scheme == "https":
            link.secure(tls or ssl.create_default_context(), parts.hostname)
        connection.sock = link
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", parts.netloc)
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "Mica")
        connection.putheader("Connection", "close")
        connection.endheaders()
        # Not `getresponse`: it closes a connection that ends with this answer, and counts on a socket's makefile.
        response = http.client.HTTPResponse(link, method="GET")
        response.begin()
        return connection, response
    except BaseException as error:
        link.close()
        if translated := _translated(parts.hostname, error):
            raise translated from error
        raise


def _connected(host: str, port: int, guard: Guard, patience: Patience) -> Line:
    """A connection to the first checked address that answers."""
    addresses = line.apart(partial(guard.addresses, host, port), patience)
    try:
        return Line(addresses, port, patience)
    except OSError as error:
        raise Transient("server_unreachable", f"{host} port {port} cannot be reached: {error}") from error


def _translated(host: str, error: BaseException) -> DriverError | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _legible(error.verify_message)
        return Rejected("certificate_refused", f"The certificate of {host} is not trusted: {why}")
    if isinstance(error, TimeoutError):
        return _silent()
    if isinstance(error, (OSError, http.client.HTTPException)):
        return Transient("connection_broken", f"{host} broke off the talk: {_legible(error)}")
    return None


def _silent() -> Transient:
    return Transient("server_silent", f"The server sent nothing for {line.SILENCE_S:.0f} s.")


def _legible(words: object) -> str:
    """What the server made be said, for a person to read: nothing invisible, nothing that acts, not too long."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(words)[:LONGEST_WORDS]
    )
