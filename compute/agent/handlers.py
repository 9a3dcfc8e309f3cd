"""What a host does about virtual machines when it is asked, and what it tells by itself."""

import asyncio
from typing import Any

from cloud.agent.registry import Call, Machine, Sample, command, fact, on_start, query, sampler, stream_verb
from cloud.common.tickets import Ticket
from compute.agent import console, hypervisor
from compute.agent.sampling import Sampler
from compute.messages import (
    SERIAL_VERB,
    VNC_VERB,
    DomainInventory,
    Domains,
    DomainState,
    GuestInfo,
    GuestReport,
    RebootDomain,
    RemoveDomain,
    StartDomain,
    StopDomain,
)

_SAMPLER = "compute.sampler"


@on_start
def begin(machine: Machine) -> None:
    if machine.kind == "host":
        hypervisor.begin(machine)


@fact
def facts(machine: Machine) -> dict[str, Any]:
    """`hypervisor`, `kvm` and `kvm_why`; or `hypervisor_error`."""
    return dict(hypervisor.of(machine).facts()) if machine.kind == "host" else {}


@command(StartDomain)
def start(message: StartDomain, call: Call) -> DomainState:
    state = hypervisor.of(call.machine).start(message.spec)
    return DomainState(message.spec.uuid, state)


@command(StopDomain, patient=True)
def stop(message: StopDomain, call: Call) -> DomainState:
    state = hypervisor.of(call.machine).stop(
        message.uuid, is_forced=message.is_forced, grace_s=message.grace_s, watch=call.check_aborted
    )
    return DomainState(message.uuid, state)


@command(RebootDomain, patient=True)
def reboot(message: RebootDomain, call: Call) -> DomainState:
    state = hypervisor.of(call.machine).reboot(
        message.uuid, is_forced=message.is_forced, grace_s=message.grace_s, watch=call.check_aborted
    )
    return DomainState(message.uuid, state)


@command(RemoveDomain)
def remove(message: RemoveDomain, call: Call) -> DomainState:
    hypervisor.of(call.machine).remove(message.uuid)
    return DomainState(message.uuid, "stopped")


@query(GuestReport)
def guest_report(message: GuestReport, machine: Machine) -> GuestInfo:
    return hypervisor.of(machine).guest_info(message.uuid)


@query(Domains)
def domains(message: Domains, machine: Machine) -> DomainInventory:
    return DomainInventory(hypervisor.of(machine).inventory())


@sampler
def sample(machine: Machine) -> list[Sample]:
    if machine.kind != "host":
        return []
    kept: Sampler = machine.resources.setdefault(_SAMPLER, Sampler(machine.uuid))
    return kept.samples(hypervisor.of(machine).stats())


@stream_verb(VNC_VERB)
async def vnc(ticket: Ticket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: Machine) -> None:
    socket = await asyncio.to_thread(hypervisor.of(machine).vnc_socket, ticket.resource)
    await console.bridge(socket, reader, writer)


@stream_verb(SERIAL_VERB)
async def serial(ticket: Ticket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: Machine) -> None:
    socket = await asyncio.to_thread(hypervisor.of(machine).serial_socket, ticket.resource)
    await console.bridge(socket, reader, writer)
