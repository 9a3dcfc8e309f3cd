"""TLS contexts made with the platform's certificates. No Django here: this module is on the agent's path."""

import ssl
from pathlib import Path


def server_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS for a server that admits only clients whose certificate this CA signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS for a client that trusts this CA alone. An agent is met by its uuid: pass it as `server_hostname`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
