"""The stream door: who gets in, with what, how often, and that the bytes are the verb's alone."""

import asyncio
import json
import socket
import ssl
import time
import uuid

import pytest

from cloud.agent import registry, stream_client
from cloud.agent.door import Door
from cloud.agent.relay import relay
from cloud.common import tickets, tls
from cloud.common.driver import NotFound, Rejected, Transient
from tests.cloud.agent.conftest import enrol
from tests.cloud.agent.waiting import wait_until


@pytest.fixture
def door(machine, journal, monkeypatch):
    async def echo(ticket, reader, writer, machine):
        while chunk := await reader.read(1000):
            writer.write(chunk)
            await writer.drain()

    async def speak_first(ticket, reader, writer, machine):
        writer.write(b"RFB 003.008\n" + json.dumps(ticket.params).encode())

    async def refuse(ticket, reader, writer, machine):
        raise NotFound("no_console", "There is no console.")

    async def break_down(ticket, reader, writer, machine):
        raise ZeroDivisionError

    async def say_nothing(ticket, reader, writer, machine):
        return

    for verb in (echo, speak_first, refuse, break_down, say_nothing):
        monkeypatch.setitem(registry.STREAMS, f"test.{verb.__name__}", verb)
    opened = Door(machine, journal, time.time)
    opened.start()
    yield opened
    opened.stop()


@pytest.fixture
def issue(pki_dir, machine):
    key = tickets.load_signing_key(pki_dir / "ticket.key")

    def make(verb="test.echo", agent=machine.uuid, **more):
        return tickets.sign(key, agent=agent, verb=verb, resource="r-1", **more)

    return make


@pytest.fixture
def other(pki_dir, tmp_path):
    """Another machine's files."""
    return enrol(pki_dir, tmp_path / "other", str(uuid.uuid4()))


def connect(other, door, ticket):
    return stream_client.connect(other, "127.0.0.1", door.port, ticket)


def read_all(stream):
    received = b""
    while chunk := stream.recv(1000):
        received += chunk
    return received


def test_bytes_go_both_ways(door, issue, other):
    with connect(other, door, issue()) as stream:
        for size in (1, 10, 70_000):
            sent = bytes(range(256)) * (size // 256 + 1)
            stream.sendall(sent)
            received = b""
            while len(received) < len(sent):
                received += stream.recv(100_000)
            assert received == sent


def test_verb_that_speaks_first_sees_its_parameters(door, issue, other):
    with connect(other, door, issue("test.speak_first", params={"port": 22})) as stream:
        assert read_all(stream) == b'RFB 003.008\n{"port": 22}'


def test_verb_without_a_word_is_open_and_over(door, issue, other):
    with connect(other, door, issue("test.say_nothing")) as stream:
        assert read_all(stream) == b""


def test_ticket_is_good_once(door, issue, other):
    ticket = issue()
    connect(other, door, ticket).close()
    with pytest.raises(Rejected) as refused:
        connect(other, door, ticket)
    assert refused.value.code == "ticket_used"


@pytest.mark.parametrize(
    ("verb", "code"),
    [("test.refuse", "no_console"), ("test.unheard_of", "unknown_verb"), ("test.break_down", "internal_error")],
)
def test_refusals_say_why(door, issue, other, verb, code):
    with pytest.raises(Rejected) as refused:
        connect(other, door, issue(verb))
    assert refused.value.code == code


def test_ticket_for_another_agent_is_refused(door, issue, other, pki_dir, machine, monkeypatch):
    monkeypatch.setattr(stream_client, "addressee", lambda text: machine.uuid)
    with pytest.raises(Rejected) as refused:
        connect(other, door, issue(agent=str(uuid.uuid4())))
    assert refused.value.code == "ticket_misdirected"


def test_expired_ticket_is_refused(machine, journal, issue, other, monkeypatch):
    door = Door(machine, journal, lambda: time.time() + 61)
    door.start()
    try:
        with pytest.raises(Rejected) as refused:
            connect(other, door, issue(ttl_s=60))
        assert refused.value.code == "ticket_expired"
    finally:
        door.stop()


def test_client_without_a_certificate_does_not_get_in(door, issue, machine):
    context = tls.client_context(machine.config.ca)
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", door.port)) as plain:
            stream = context.wrap_socket(plain, server_hostname=machine.uuid)
            stream.sendall(json.dumps({"ticket": issue()}).encode() + b"\n")
            answer = stream.recv(100)
    except (ssl.SSLError, ConnectionError):
        pass
    assert answer == b""
    assert not door._streams


def test_client_expects_the_agent_that_the_ticket_names(door, issue, other):
    with pytest.raises(Transient) as refused:
        connect(other, door, issue(agent=str(uuid.uuid4())))
    assert refused.value.code == "stream_untrusted"


def test_unreachable_door_is_transient(issue, other, door):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Transient):
            stream_client.connect(other, "127.0.0.1", taken.getsockname()[1], issue())


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"{}\n", b"[]\n", b'{"ticket": 5}\n', b"x" * 400_000 + b"\n"])
def test_nonsense_is_refused(door, machine, other, line):
    context = tls.client_context(other.ca, other.certificate, other.key)
    with socket.create_connection(("127.0.0.1", door.port)) as plain:
        stream = context.wrap_socket(plain, server_hostname=machine.uuid)
        try:
            stream.sendall(line)
            said = read_all(stream)
        except ConnectionError:
            return
    assert said == b"" or json.loads(said)["ok"] is False


def test_closed_client_ends_the_verb(door, issue, other):
    connect(other, door, issue()).close()
    wait_until(lambda: not door._streams)


def test_relay_carries_and_closes():
    async def scenario():
        async def backend(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()

        served = asyncio.Event()

        async def front(reader, writer):
            other_reader, other_writer = await asyncio.open_connection(*behind.sockets[0].getsockname())
            await relay(reader, writer, other_reader, other_writer)
            writer.close()
            served.set()

        behind = await asyncio.start_server(backend, "127.0.0.1", 0)
        server = await asyncio.start_server(front, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await asyncio.wait_for(reader.read(), 5) == b"HELLO\n"
        await asyncio.wait_for(served.wait(), 5)
        writer.close()
        server.close()
        behind.close()

    asyncio.run(scenario())
