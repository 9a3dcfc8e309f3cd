"""Secrets on their way to a machine: only it can open them, and nothing on the way shows them."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from cloud.common import pki, sealing
from cloud.common.driver import Transient
from cloud.common.wire import SECRET, Message, Secret

AGENT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
TEXT = "пароль\n\x00 #cloud-config"


@dataclass(frozen=True)
class Inner(Message):
    password: str = field(default="", repr=False, metadata=SECRET)
    name: str = ""


@dataclass(frozen=True)
class Outer(Message):
    kind: ClassVar[str] = "test.outer"
    inner: Inner
    many: tuple[Inner, ...] = ()


@pytest.fixture
def machine(tmp_path):
    """A machine's key file and the public key in its certificate."""
    pki.init(tmp_path / "pki")
    key = tmp_path / "key.pem"
    signed = pki.sign_request(tmp_path / "pki", pki.request(key, AGENT), agent=AGENT)
    return key, sealing.public_key_of(signed.certificate)


def test_only_the_machine_opens_it(machine, tmp_path):
    key, public_key = machine
    asked = Outer(Inner(TEXT, "in clear"), (Inner("second"),))
    sent = sealing.sealed(asked.to_document(), AGENT, public_key)
    travelling = json.dumps(sent)
    assert "second" not in travelling
    assert "in clear" in travelling
    assert Outer.from_document(sealing.opened(json.loads(travelling), AGENT, key)) == asked
    stranger = tmp_path / "stranger.pem"
    pki.request(stranger, OTHER)
    for agent, path in ((AGENT, stranger), (OTHER, key), (AGENT, tmp_path / "absent.pem")):
        with pytest.raises(Transient) as refused:
            sealing.opened(sent, agent, path)
        assert refused.value.code == "secret_unreadable"


def test_what_was_tampered_with_is_not_opened(machine):
    key, public_key = machine
    sent = sealing.sealed(Inner("text").to_document(), AGENT, public_key)
    for broken in ("", "AAAA", sent["password"]["$sealed"][:-8] + "AAAAAAA="):
        with pytest.raises(Transient):
            sealing.opened({"password": {"$sealed": broken}}, AGENT, key)


def test_the_same_text_is_never_sealed_alike(machine):
    document = Inner("text").to_document()
    assert sealing.sealed(document, AGENT, machine[1]) != sealing.sealed(document, AGENT, machine[1])


def test_a_machine_whose_key_is_not_known_is_sent_it_as_before():
    document = Inner("text").to_document()
    sent = sealing.sealed(document, AGENT, "")
    assert (sent["password"], type(sent["password"])) == ("text", str)


def test_it_does_not_show_before_it_is_sealed():
    document = Outer(Inner("hidden")).to_document()
    assert isinstance(document["inner"]["password"], Secret)
    assert "hidden" not in f"{document} {document['inner']['password']} {document['inner']['password']!r}"
    assert sealing.has_secrets(document)
    assert not sealing.has_secrets(Outer(Inner("")).to_document())
    assert Outer.from_document(document).inner.password == "hidden"


def test_only_the_platforms_own_certificates_are_believed(tmp_path, machine):
    signed = pki.sign_request(tmp_path / "pki", pki.request(tmp_path / "key.pem", AGENT), agent=AGENT)
    assert pki.checked_certificate(tmp_path / "pki", signed.certificate, agent=AGENT).serial == signed.serial
    pki.init(tmp_path / "other")
    foreign = pki.sign_request(tmp_path / "other", pki.request(tmp_path / "key.pem", AGENT), agent=AGENT)
    for certificate, agent in ((foreign.certificate, AGENT), (signed.certificate, OTHER), ("no certificate", AGENT)):
        with pytest.raises(pki.PkiError):
            pki.checked_certificate(tmp_path / "pki", certificate, agent=agent)
