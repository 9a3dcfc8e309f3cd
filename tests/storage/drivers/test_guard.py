"""Where a download may not go, however the address is written."""

import socket

import pytest

from cloud.common.driver import Rejected, Transient
from storage.drivers.guard import Guard, resolve
from storage.models.refused import ALWAYS

REFUSED = [*ALWAYS, "10.99.0.0/24", "fd00:99::/64"]


def answering(*addresses: str) -> Guard:
    return Guard(REFUSED, lambda host, port: list(addresses))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "169.254.169.254",
        "10.99.0.1",
        "10.99.0.255",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "fd00:99::5",
        "::ffff:127.0.0.1",
        "::ffff:10.99.0.21",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "2002:7f00:0001::1",
        "2002:0a63:0001::",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a63:1",
        "2001:0000:7f00:0001:0000:0000:80ff:fffe",
    ],
)
def test_refused(address: str) -> None:
    with pytest.raises(Rejected) as refused:
        answering(address).addresses("images.example", 80)
    assert refused.value.code == "address_refused"


@pytest.mark.parametrize("address", ["203.0.113.1", "10.98.255.255", "10.99.1.1", "2001:db8::1", "fd00:98::1"])
def test_allowed(address: str) -> None:
    assert answering(address).addresses("images.example", 80) == [address]


def test_one_bad_address_spoils_the_name() -> None:
    with pytest.raises(Rejected):
        answering("203.0.113.1", "127.0.0.1").addresses("images.example", 80)


def test_a_name_without_address() -> None:
    with pytest.raises(Rejected) as refused:
        answering().addresses("images.example", 80)
    assert refused.value.code == "name_unknown"


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "127.0.1", "0177.0.0.1", "0", "localhost"]
)
def test_other_ways_to_write_loopback(host: str) -> None:
    with pytest.raises(Rejected) as refused:
        Guard(REFUSED).addresses(host, 80)
    assert refused.value.code == "address_refused"


def test_names_that_are_none() -> None:
    for host in ("no-such-name.invalid", "a" * 300, "\x00"):
        with pytest.raises((Rejected, Transient)):
            resolve(host, 80)


def test_a_silent_name_server_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "again")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with pytest.raises(Transient):
        resolve("images.example", 80)
