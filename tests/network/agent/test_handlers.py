"""From the agent's registry to the driver and back."""

import asyncio
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest

from cloud.agent.config import AgentConfig
from cloud.agent.convergence import PartsFailed
from cloud.agent.registry import QUERIES, SECTIONS, STREAMS, Machine
from cloud.common.driver import NotFound, Rejected
from cloud.common.tickets import Ticket
from network.agent import handlers
from network.agent.machine import driver
from network.drivers.fake import FakeNetwork
from network.messages import (
    BridgeSpec,
    DhcpDesired,
    DhcpHost,
    DhcpNetwork,
    NetworksDesired,
    ProbeAddress,
    bridge_name,
    dhcp_mac,
    dhcp_port_name,
    namespace_name,
    tap_name,
    vlan_name,
    vxlan_name,
)

L2, L3 = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(str(uuid.uuid4()), "host", AgentConfig(str(uuid.uuid4()), hypervisor="fake"), tmp_path)


def test_sections_reach_the_driver(machine: Machine) -> None:
    spec = BridgeSpec(L2, 1450, "vxlan", vni=7, local="10.0.0.1", peers=["10.0.0.2"])
    server = DhcpNetwork(
        L3, L2, "10.1.0.2", 24, 1450, hosts=[DhcpHost(str(uuid.uuid4()), "fa:00:00:00:00:01", "10.1.0.3", "x")]
    )
    with pytest.raises(PartsFailed) as caught:  # its bridge is not there yet: tried again when it is
        SECTIONS["dhcp"](DhcpDesired([server]).to_document(), machine)
    assert {part: each.nature for part, each in caught.value.parts.items()} == {L3: "transient"}
    SECTIONS["networks"](NetworksDesired([spec]).to_document(), machine)
    SECTIONS["dhcp"](DhcpDesired([server]).to_document(), machine)
    fake = driver(machine)
    assert isinstance(fake, FakeNetwork)
    assert fake.bridges == {L2: spec}
    assert fake.servers == {L3: server}


def test_probe(machine: Machine) -> None:
    probe = QUERIES["network.probe_address"]
    with pytest.raises(NotFound):
        probe.function(ProbeAddress(L2, "10.1.0.9"), machine)
    SECTIONS["networks"](NetworksDesired([BridgeSpec(L2, 1500, "physical", interface="eth2")]).to_document(), machine)
    fake = driver(machine)
    assert isinstance(fake, FakeNetwork)
    fake.answering[L2, "10.1.0.9"] = ["02:00:00:00:00:01"]
    assert probe.function(ProbeAddress(L2, "10.1.0.9"), machine).to_document() == {"macs": ["02:00:00:00:00:01"]}


def ticket(**params: Any) -> Ticket:
    return Ticket(agent="a", verb="network.tcp", resource=L3, params=params, exp=0, nonce="n")


def test_stream_carries_bytes_both_ways(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int]] = []
    near, far = socket.socketpair()

    def connect(l3: str, ip: str, port: int, timeout_s: float) -> socket.socket:
        asked.append((l3, ip, port))
        return near

    monkeypatch.setattr(driver(machine), "connect", connect)

    async def scene() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        verb = asyncio.create_task(
            STREAMS["network.tcp"](ticket(l3=L3, ip="10.1.0.3", port=22), reader, writer, machine)
        )
        client_reader, client_writer = await asyncio.open_connection(sock=ours)
        guest_reader, guest_writer = await asyncio.open_connection(sock=far)
        client_writer.write(b"question")
        assert await guest_reader.readexactly(8) == b"question"
        guest_writer.write(b"answer")
        answer = await client_reader.readexactly(6)
        guest_writer.close()
        await verb
        client_writer.close()
        writer.close()
        return answer

    assert asyncio.run(scene()) == b"answer"
    assert asked == [(L3, "10.1.0.3", 22)]


@pytest.mark.parametrize("params", [{}, {"l3": L3, "ip": "10.1.0.3"}, {"l3": L3, "ip": "10.1.0.3", "port": "ssh"}])
def test_incomplete_ticket_is_refused(machine: Machine, params: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as caught:
        asyncio.run(handlers.tcp(ticket(**params), None, None, machine))  # type: ignore[arg-type]
    assert caught.value.code == "ticket_incomplete"


def test_names_fit_the_kernel() -> None:
    names = [bridge_name(L2), vlan_name(L2), vxlan_name(2**24 - 1), tap_name(L2), dhcp_port_name(L3)]
    assert max(map(len, names)) <= 15
    assert len(set(names)) == len(names)
    assert len(namespace_name(L3)) == 15
    assert int(dhcp_mac(L3).split(":")[0], 16) & 0b11 == 0b10  # locally administered, for one receiver
