"""A certificate that is renewed in time, without losing anything, and one that was revoked and opens no door."""

import json
import ssl
import time
import uuid
from datetime import timedelta

import pytest

from cloud.agent import certificate, registry, stream_client
from cloud.agent.certificate import OwnCertificate
from cloud.agent.door import Door
from cloud.agent.link import client
from cloud.agent.peers import Peers
from cloud.common import pki, tickets
from cloud.common.driver import Rejected
from cloud.infra.agent import handlers
from tests.cloud.agent.conftest import enrol


def sign(pki_dir, config, life):
    request = pki.request(config.key, config.uuid)
    return pki.sign_request(pki_dir, request, agent=config.uuid, addresses=["127.0.0.1"], life=life)


def serial_of(path):
    from cryptography import x509

    return pki.serial_of(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)


@pytest.fixture
def asked():
    return []


@pytest.fixture
def own(machine, asked):
    made = OwnCertificate(machine.config, lambda request, serial: asked.append((request, serial)))
    machine.resources[certificate.RESOURCE] = made
    return made


def at(config, share):
    """The moment when this share of the certificate's life is over."""
    from cryptography import x509

    held = x509.load_pem_x509_certificate(config.certificate.read_bytes())
    begins, ends = (moment.timestamp() for moment in pki.lifetime(held))
    return begins + (ends - begins) * share


@pytest.mark.parametrize(("share", "is_due"), [(0.01, False), (0.66, False), (0.67, True), (1.5, True)])
def test_it_asks_when_two_thirds_are_over(config, asked, share, is_due):
    moment = at(config, share)
    own = OwnCertificate(config, lambda *said: asked.append(said), lambda: moment)
    assert own.look() is is_due
    own.look()
    assert len(asked) == is_due  # once a minute at most
    if is_due:
        request, serial = asked[0]
        assert serial == serial_of(config.certificate)
        assert pki.is_certificate_of(config.certificate.read_text(), request)


def test_a_certificate_of_a_moment_is_due_at_once_and_of_a_year_not(pki_dir, config, own):
    config.certificate.write_text(sign(pki_dir, config, timedelta(minutes=10)).certificate)
    assert own.is_due()  # signed as of an hour ago, for clocks that differ
    own.install(sign(pki_dir, config, timedelta(days=365)).certificate)
    assert not own.is_due()


def test_what_is_not_its_own_is_refused(pki_dir, config, own, tmp_path):
    other = enrol(pki_dir, tmp_path / "other", str(uuid.uuid4()))
    stranger = tmp_path / "stranger"
    pki.init(stranger)
    same_name = enrol(pki_dir, tmp_path / "same", config.uuid)
    before = config.certificate.read_text()
    of_stranger = sign(stranger, config, timedelta(days=1)).certificate
    for bad in (other.certificate.read_text(), same_name.certificate.read_text(), of_stranger, "no certificate"):
        with pytest.raises(Rejected):
            own.install(bad)
    assert config.certificate.read_text() == before


@pytest.fixture
def door(machine, own, journal, monkeypatch):
    async def echo(ticket, reader, writer, machine):
        while chunk := await reader.read(1000):
            writer.write(chunk)
            await writer.drain()

    monkeypatch.setitem(registry.STREAMS, "test.echo", echo)
    opened = Door(machine, journal, time.time)
    opened.start()
    yield opened
    opened.stop()


@pytest.fixture
def peer(pki_dir, tmp_path):
    return enrol(pki_dir, tmp_path / "peer", str(uuid.uuid4()))


@pytest.fixture
def connect(door, pki_dir, machine, peer):
    key = tickets.load_signing_key(pki_dir / "ticket.key")

    def opened(config=peer):
        ticket = tickets.sign(key, agent=machine.uuid, verb="test.echo", resource="r")
        return stream_client.connect(config, "127.0.0.1", door.port, ticket)

    return opened


def shown(stream):
    return stream.getpeercert()["serialNumber"].lower().lstrip("0")


def test_the_door_shows_the_new_one_and_open_streams_go_on(connect, own, pki_dir, machine):
    with connect() as before:
        old = shown(before)
        new = sign(pki_dir, machine.config, timedelta(days=9)).certificate
        handlers.install_certificate({"certificate": new}, machine)
        with connect() as after:
            assert shown(after) == serial_of(machine.config.certificate) != old
        before.sendall(b"still here")
        assert before.recv(100) == b"still here"


def test_redis_takes_the_new_one(linked, redis_server, pki_dir):
    open_before = client(linked)
    assert open_before.ping()
    own = OwnCertificate(linked, lambda *_: None)
    own.install(sign(pki_dir, linked, timedelta(days=9)).certificate)
    assert client(linked).ping()
    assert open_before.ping()


def test_a_revoked_peer_is_refused(connect, machine, peer):
    connect().close()
    handlers.refuse_revoked({"serials": [serial_of(peer.certificate)]}, machine)
    with pytest.raises(Rejected) as refused:
        connect()
    assert refused.value.code == "certificate_revoked"
    handlers.refuse_revoked({"serials": []}, machine)
    connect().close()


def test_a_revoked_machine_is_not_spoken_to(connect, machine, peer, tmp_path):
    from cloud.agent.registry import Machine, Unlinked

    class Linked(Unlinked):
        def open_stream(self, address, port, ticket):
            return connect()

    caller = Machine(peer.uuid, "host", peer, tmp_path / "caller", Linked())
    caller.open_stream("127.0.0.1", 1, "x").close()
    caller.peers.revoke([serial_of(machine.config.certificate)])
    with pytest.raises(Rejected) as refused:
        caller.open_stream("127.0.0.1", 1, "x")
    assert refused.value.code == "certificate_revoked"


def test_whom_to_refuse_is_remembered(tmp_path):
    Peers(tmp_path / "revoked.json").revoke(["ab", "cd"])
    assert json.loads((tmp_path / "revoked.json").read_text()) == ["ab", "cd"]
    (tmp_path / "damaged.json").write_text("{")
    Peers(tmp_path / "damaged.json").revoke(["ab"])

    class Shows:
        def __init__(self, serial):
            self.serial = serial

        def getpeercert(self):
            return {"serialNumber": self.serial}

    again = Peers(tmp_path / "revoked.json")
    again.expect_welcome(Shows("EF"))
    with pytest.raises(Rejected):
        again.expect_welcome(Shows("00AB"))


def test_an_expired_one_opens_nothing(connect, pki_dir, peer):
    peer.certificate.write_text(sign(pki_dir, peer, timedelta(seconds=1) - timedelta(minutes=5)).certificate)
    with pytest.raises((Exception,)) as refused:  # the handshake's end, as either side tells it
        connect().recv(10)
    assert isinstance(refused.value, (ssl.SSLError, OSError)) or getattr(refused.value, "nature", "") == "transient"
