"""The platform's CA: what it signs, what it refuses, and that the certificates really meet in TLS."""

import concurrent.futures
import socket
import ssl
import stat
import subprocess
import sys
import threading
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloud.common import pki, tls


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "pki"
    pki.init(made)
    return made


@pytest.fixture
def agent():
    return str(uuid.uuid4())


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_init_keeps_what_is_there(directory):
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    pki.init(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert {"ca.pem", "ca.key", "ticket.key", "ticket.pub", "secrets.key"} <= set(before)


def test_private_keys_are_private(directory, tmp_path, agent):
    pki.issue(directory, "redis", out=directory / "redis")
    pki.request(tmp_path / "key.pem", agent)
    for path in (*directory.glob("*.key"), tmp_path / "key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_issue_keeps_a_good_certificate_and_replaces_another(directory):
    def issue(**names):
        pki.issue(directory, "redis", out=directory / "redis", **names)
        return read(directory / "redis.pem").serial_number

    first = issue(addresses=["10.99.0.1"], dns=["redis"])
    assert issue(addresses=["10.99.0.1"], dns=["redis"]) == first
    second = issue(addresses=["10.99.0.2"], dns=["redis"])
    assert second != first
    assert issue(addresses=["10.99.0.2"], dns=["redis"], is_client=True) != second


def test_issue_replaces_a_certificate_of_another_ca(directory, tmp_path):
    other = tmp_path / "other"
    pki.init(other)
    pki.issue(other, "redis", out=directory / "redis")
    foreign = read(directory / "redis.pem")
    pki.issue(directory, "redis", out=directory / "redis")
    assert read(directory / "redis.pem").issuer != foreign.issuer


def test_many_processes_that_issue_at_once_leave_one_pair_that_fits(directory):
    def issue(_):
        command = ["issue", str(directory), "control", "--client", "--out", str(directory / "control")]
        return subprocess.run([sys.executable, "-m", "cloud.common.pki", *command], check=False).returncode

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(issue, range(4))) == {0}
    tls.client_context(directory / "ca.pem", directory / "control.pem", directory / "control.key")


def test_agents_certificate_meets_in_mutual_tls(directory, tmp_path, agent):
    request = pki.request(tmp_path / "key.pem", agent)
    signed = pki.sign_request(directory, request, agent=agent, addresses=["127.0.0.1", "host-1.example"])
    (tmp_path / "cert.pem").write_text(signed.certificate)
    assert int(signed.serial, 16) == read(tmp_path / "cert.pem").serial_number
    ca = directory / "ca.pem"
    server = tls.server_context(ca, tmp_path / "cert.pem", tmp_path / "key.pem")
    client = tls.client_context(ca, tmp_path / "cert.pem", tmp_path / "key.pem")
    for name in (agent, "127.0.0.1", "host-1.example"):
        assert greet(server, client, name) == agent
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(server, client, str(uuid.uuid4()))


def greet(server, client, name):
    """Shake hands over a socket pair; the common name that the client saw."""
    one, other = socket.socketpair()

    def serve():
        try:
            server.wrap_socket(one, server_side=True).close()
        except OSError:
            one.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(other, server_hostname=name) as stream:
            return dict(part[0] for part in stream.getpeercert()["subject"])["commonName"]
    finally:
        other.close()
        thread.join()


def test_request_makes_the_key_once(tmp_path, agent):
    def public(request):
        return x509.load_pem_x509_csr(request.encode()).public_key().public_numbers()

    key = tmp_path / "etc" / "key.pem"
    assert public(pki.request(key, agent)) == public(pki.request(key, agent))


def other_request(agent, key):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, agent)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_request_of_another_agent_is_refused(directory, agent):
    request = other_request(str(uuid.uuid4()), ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(pki.PkiError, match="not " + agent):
        pki.sign_request(directory, request, agent=agent)


def test_request_with_another_kind_of_key_is_refused(directory, agent):
    request = other_request(agent, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(pki.PkiError, match="elliptic"):
        pki.sign_request(directory, request, agent=agent)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_damaged_request_is_refused(directory, agent, text):
    with pytest.raises(pki.PkiError):
        pki.sign_request(directory, text, agent=agent)


def test_what_a_request_asks_for_beyond_its_key_is_not_signed(directory, agent):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, agent)])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("control")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    signed = x509.load_pem_x509_certificate(pki.sign_request(directory, request, agent=agent).certificate.encode())
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [agent]


def test_without_a_ca_it_says_what_to_do(tmp_path, capsys):
    assert pki.main(["issue", str(tmp_path), "redis", "--out", str(tmp_path / "redis")]) == 1
    assert "pki init" in capsys.readouterr().err
