"""The agent's side of networks: sections, queries and streams, handed to the driver."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cloud.agent.convergence import PartsFailed
from cloud.agent.registry import Machine, query, section, stream_verb
from cloud.agent.relay import relay
from cloud.common.driver import Rejected
from cloud.common.tickets import Ticket
from cloud.common.wire import Document, Failure
from network.agent.machine import driver
from network.drivers.base import SomeFailed
from network.messages import TCP_VERB, DhcpDesired, NetworksDesired, ProbeAddress, ProbedAddress

PROBE_AT_MOST_S = 4.0
CONNECT_TIMEOUT_S = 5.0


@contextmanager
def _in_parts() -> Iterator[None]:
    """Let networks fail one by one: who needs none of them is served."""
    try:
        yield
    except SomeFailed as error:
        parts = {uuid: Failure(each.nature, each.code, each.detail) for uuid, each in error.parts.items()}
        raise PartsFailed(parts) from error


@section("networks")
def converge_networks(body: Document, machine: Machine) -> None:
    with _in_parts():
        driver(machine).converge_networks(NetworksDesired.from_document(body))


@section("dhcp")
def converge_dhcp(body: Document, machine: Machine) -> None:
    with _in_parts():
        driver(machine).converge_dhcp(DhcpDesired.from_document(body))


@query(ProbeAddress)
def probe_address(message: ProbeAddress, machine: Machine) -> ProbedAddress:
    return ProbedAddress(driver(machine).probe(message.l2, message.ip, min(message.timeout_s, PROBE_AT_MOST_S)))


@stream_verb(TCP_VERB)
async def tcp(ticket: Ticket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: Machine) -> None:
    """Join the stream to an address of an L3 network; `params` of the ticket are l3, ip and port."""
    try:
        l3, ip, port = str(ticket.params["l3"]), str(ticket.params["ip"]), int(ticket.params["port"])
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("ticket_incomplete", "the ticket does not say where to connect: l3, ip and port") from error
    connected = await asyncio.to_thread(driver(machine).connect, l3, ip, port, CONNECT_TIMEOUT_S)
    connected.setblocking(False)
    await relay(reader, writer, *await asyncio.open_connection(sock=connected))
