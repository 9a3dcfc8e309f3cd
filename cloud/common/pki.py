"""The platform's small certificate authority.

One CA signs one certificate per agent and one per server of the platform. It serves Redis, the stream door, the metric
store and libvirt's migration. Keys are ECDSA P-256; the ticket key pair is Ed25519.

A PKI directory holds `ca.pem`, `ca.key`, `ticket.key` (PEM), `ticket.pub` (one line of base64, as agents keep it) and
`secrets.key` (Fernet). No Django here: this module is on the agent's path, and must work with cryptography 38.

    python -m cloud.common.pki init <dir>
    python -m cloud.common.pki issue <dir> <name> [--ip A]... [--dns N]... [--client] --out <prefix>

`issue` writes `<prefix>.pem` and `<prefix>.key`.
"""

import argparse
import base64
import fcntl
import ipaddress
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
AGENT_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
CLOCKS_APART = timedelta(hours=1)
PRIVATE, PUBLIC = 0o600, 0o644


class PkiError(Exception):
    """A certificate, key or request is missing or not acceptable; the text says which and why."""


@dataclass(frozen=True)
class Signed:
    """A certificate as PEM, its serial number as hexadecimal text, and its end."""

    certificate: str
    serial: str
    expires_at: datetime


def init(directory: Path) -> None:
    """Make the CA, the ticket key pair and the key for sealing secrets; what is there already stays as it is."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(directory):
        if not (directory / "ca.pem").exists():
            _make_authority(directory)
        if not (directory / "ticket.pub").exists():
            ticket = ed25519.Ed25519PrivateKey.generate()
            raw = ticket.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            _write(directory / "ticket.key", _private_pem(ticket), PRIVATE)
            _write(directory / "ticket.pub", base64.b64encode(raw) + b"\n", PUBLIC)
        if not (directory / "secrets.key").exists():
            _write(directory / "secrets.key", Fernet.generate_key() + b"\n", PRIVATE)


def issue(
    directory: Path,
    name: str,
    *,
    out: Path,
    addresses: Sequence[str] = (),
    dns: Sequence[str] = (),
    is_client: bool = False,
) -> None:
    """Write `<out>.pem` and `<out>.key` for a server of the platform (and a client of others when `is_client`).

    A certificate that is there, names the same, and is good for another month is kept. Raises PkiError without a CA.
    """
    certificate_path, key_path = Path(f"{out}.pem"), Path(f"{out}.key")
    with _alone(directory):
        if key_path.exists() and _still_good(directory, certificate_path, name, addresses, dns, is_client):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _sign(directory, name, key.public_key(), addresses, dns, life=SERVER_LIFE, is_client=is_client)
        out.parent.mkdir(parents=True, exist_ok=True)
        # The certificate last: it is what says that a pair is complete.
        certificate_path.unlink(missing_ok=True)
        _write(key_path, _private_pem(key), PRIVATE)
        _write(certificate_path, signed.certificate.encode(), PUBLIC)


def sign_request(
    directory: Path, request_pem: str, *, agent: str, addresses: Sequence[str] = (), life: timedelta = AGENT_LIFE
) -> Signed:
    """Sign an agent's certificate request: client and server certificate for the uuid `agent` and its addresses.

    Of the request only the public key is taken. `addresses` may hold IP addresses and DNS names. Raises PkiError when
    the request is damaged, is for another agent, or has a key of another kind.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError as error:
        raise PkiError("the certificate request cannot be read") from error
    if not request.is_signature_valid:
        raise PkiError("the certificate request is not signed by its own key")
    names = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [agent]:
        raise PkiError(f"the certificate request names {', '.join(names) or 'nobody'}, not {agent}")
    public_key = request.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise PkiError("the certificate request has no elliptic-curve key")
    addresses_ip = [a for a in addresses if _is_address(a)]
    dns = [agent, *(a for a in addresses if not _is_address(a))]
    return _sign(directory, agent, public_key, addresses_ip, dns, life=life, is_client=True)


def is_certificate_of(certificate_pem: str, request_pem: str) -> bool:
    """Whether the certificate has the key that a request asks one for."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        asked = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError:
        return False
    return _public(certificate.public_key()) == _public(asked.public_key())


def lifetime(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """From when until when the certificate is good."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    # cryptography 38 tells the same without its time zone.
    return certificate.not_valid_before.replace(tzinfo=UTC), certificate.not_valid_after.replace(tzinfo=UTC)


def serial_of(number: int) -> str:
    """A serial number as it is written everywhere: hexadecimal, lower case, without leading zeros."""
    return f"{number:x}"


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def request(key_path: Path, agent: str) -> str:
    """A certificate request (PEM) for the uuid `agent`; makes the private key (mode 0600) when it is absent."""
    if key_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        key_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(key_path, _private_pem(key), PRIVATE)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{key_path} holds no elliptic-curve key")
    made = x509.CertificateSigningRequestBuilder().subject_name(_name(agent)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def checked_certificate(directory: Path, certificate: str, *, agent: str) -> Signed:
    """A certificate that an agent shows, if this platform's CA signed it for that agent. Raises PkiError otherwise."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        authority, _key = _authority(directory)
        authority_key = authority.public_key()
        assert isinstance(authority_key, ec.EllipticCurvePublicKey)
        authority_key.verify(found.signature, found.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature) as error:
        raise PkiError("the certificate was not signed by this platform") from error
    names = [str(a.value) for a in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [agent]:
        raise PkiError(f"the certificate is for {', '.join(names) or 'nobody'}, not for {agent}")
    return Signed(certificate, serial_of(found.serial_number), lifetime(found)[1])


def _sign(
    directory: Path,
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    addresses: Sequence[str],
    dns: Sequence[str],
    *,
    life: timedelta,
    is_client: bool,
) -> Signed:
    authority, authority_key = _authority(directory)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] + [ExtendedKeyUsageOID.CLIENT_AUTH] * is_client
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in dns]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    builder = (
        _builder(name, authority.subject, public_key, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Signed(pem, serial_of(certificate.serial_number), lifetime(certificate)[1])


def _make_authority(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own, so that nobody takes the certificate of an earlier CA for one of this.
    name = f"Mica CA {secrets.token_hex(4)}"
    certificate = (
        _builder(name, _name(name), key.public_key(), CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca.key", _private_pem(key), PRIVATE)
    _write(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), PUBLIC)


def _builder(
    subject: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except OSError as error:
        raise PkiError(f"there is no CA in {directory}: run `python -m cloud.common.pki init {directory}`") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{directory / 'ca.key'} holds no elliptic-curve key")
    return certificate, key


def _still_good(
    directory: Path, path: Path, name: str, addresses: Sequence[str], dns: Sequence[str], is_client: bool
) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    authority, _ = _authority(directory)
    if certificate.issuer != authority.subject or lifetime(certificate)[1] < datetime.now(UTC) + RENEW_BEFORE:
        return False
    if certificate.subject != _name(name):
        return False
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if is_client != (ExtendedKeyUsageOID.CLIENT_AUTH in usage):
        return False
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not addresses and not dns
    held_addresses = {str(a) for a in names.get_values_for_type(x509.IPAddress)}
    return held_addresses == {str(ipaddress.ip_address(a)) for a in addresses} and set(
        names.get_values_for_type(x509.DNSName)
    ) == set(dns)


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all: a set-up killed here leaves no half key behind."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One at a time in this directory: two processes must not mix their keys and certificates."""
    if not directory.is_dir():
        raise PkiError(f"there is no directory {directory}: run `python -m cloud.common.pki init {directory}`")
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cloud.common.pki", description="The platform's own CA.")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("init", help="make the CA and the ticket keys; what is there stays")
    made.add_argument("directory", type=Path)
    issued = commands.add_parser("issue", help="make a key and a certificate: <out>.key and <out>.pem")
    issued.add_argument("directory", type=Path)
    issued.add_argument("name")
    issued.add_argument("--ip", action="append", default=[])
    issued.add_argument("--dns", action="append", default=[])
    issued.add_argument("--client", action="store_true", help="may also be a client's certificate")
    issued.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        if given.command == "init":
            init(given.directory)
        else:
            issue(given.directory, given.name, out=given.out, addresses=given.ip, dns=given.dns, is_client=given.client)
    except (PkiError, OSError, ValueError) as error:
        print(f"pki: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
