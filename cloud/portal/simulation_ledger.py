"""The books about simulated hosts, compared with each other and with what the simulator's machines hold."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.db.models import Sum

from cloud.agent.simulator.holdings import HOLDINGS, WANTED
from cloud.common.waiting import wait_until
from cloud.infra import simulation
from cloud.infra.models import HostCapacity
from cloud.jobs.models import Job, JobResource
from cloud.portal.simulation import NAME, directory
from compute.models import Instance, InstanceState
from network.models import AddressPurpose, IpAddress, L3Network, Nic
from storage.models import ImageCache, StorageCapacity, Volume

PATIENCE_S = 20.0


def differences() -> list[str]:
    """One line for each thing that is booked wrongly, twice, or not held as it is booked; none when all is well.

    Only true of a cloud at rest. Raises TimeoutError when the simulator does not say what it holds.
    """
    held = holdings()
    instances = list(Instance.objects.filter(zone__name=NAME))
    found = [*_jobs(), *_capacity(instances), *_addresses(instances), *_storage(instances)]
    return [*found, *_domains(instances, held), *_volumes(held), *_leases(held)]


def holdings() -> dict[str, Any]:
    """What each machine holds, by its agent's uuid (`cloud.agent.simulator.holdings.of`)."""
    (directory() / HOLDINGS).unlink(missing_ok=True)
    (directory() / WANTED).touch()
    wait_until(lambda: (directory() / HOLDINGS).exists(), PATIENCE_S)
    found: dict[str, Any] = json.loads((directory() / HOLDINGS).read_text())
    return found


def _jobs() -> Iterator[str]:
    for job in Job.objects.live():
        yield f"job {job.pk} ({job.workflow}) is {job.state}"
    for job in Job.objects.filter(state="stuck"):
        yield f"job {job.pk} ({job.workflow}) is stuck"
    for lock in JobResource.objects.filter(is_held=True).exclude(job__finished_at=None):
        yield f"{lock.resource_type} {lock.resource_uuid} is locked by the finished job {lock.job_id}"


def _capacity(instances: list[Instance]) -> Iterator[str]:
    cpu, memory = Counter[Any](), Counter[Any]()
    for instance in instances:
        if instance.is_reserved:
            cpu[instance.host_id] += instance.cpu
            memory[instance.host_id] += instance.memory_bytes
    for row in simulation.among(HostCapacity.objects.select_related("host")):
        wanted = (cpu[row.pk], memory[row.pk])
        if (row.cpu_used, row.memory_used_bytes) != wanted:
            yield f"{row.host} books {row.cpu_used} CPU, {row.memory_used_bytes} bytes; its instances have {wanted}"


def _addresses(instances: list[Instance]) -> Iterator[str]:
    network = L3Network.objects.filter(l2__zone__name=NAME).first()
    taken = dict(IpAddress.objects.filter(l3=network, purpose=AddressPurpose.NIC).values_list("holder", "address"))
    cards = {nic.pk: nic for nic in Nic.objects.filter(l3=network)}
    for holder, address in taken.items():
        if holder not in cards:
            yield f"{address} is held by a card that is not there, {holder}"
    for nic in cards.values():
        if taken.get(nic.pk) != nic.address:
            yield f"card {nic.pk} has {nic.address}, booked is {taken.get(nic.pk)}"
    known = {instance.pk for instance in instances}
    for nic in cards.values():
        if nic.instance_uuid not in known:
            yield f"card {nic.pk} is of an instance that is not there, {nic.instance_uuid}"
    for what, values in (("address", [n.address for n in cards.values()]), ("MAC", [n.mac for n in cards.values()])):
        for value, times in Counter(values).items():
            if times > 1:
                yield f"the {what} {value} was given {times} times"
    have = Counter(nic.instance_uuid for nic in cards.values())
    for instance in instances:
        if not have[instance.pk]:
            yield f"{instance} has no network card"


def _storage(instances: list[Instance]) -> Iterator[str]:
    rows = Volume.objects.filter(primary_storage__zone__name=NAME)
    promised = Counter[Any]()
    for model in (rows, ImageCache.objects.filter(primary_storage__zone__name=NAME)):
        for host, size_bytes in model.values_list("host").annotate(Sum("size_bytes")):  # type: ignore[attr-defined]
            promised[host] += size_bytes
    for books in StorageCapacity.objects.filter(primary_storage__zone__name=NAME).select_related("host"):
        if books.used_bytes != promised[books.host_id]:
            yield f"{books.host} promises {books.used_bytes} bytes of storage; there are {promised[books.host_id]}"
    known = {instance.pk for instance in instances}
    for volume in rows:
        if volume.instance_uuid not in known:
            yield f"volume {volume.pk} is of an instance that is not there, {volume.instance_uuid}"


def _domains(instances: list[Instance], held: dict[str, Any]) -> Iterator[str]:
    running = {str(each.pk): str(each.host_id) for each in instances if each.state == InstanceState.RUNNING}
    seen: dict[str, str] = {}
    for host, machine in held.items():
        for domain, state in machine["domains"].items():
            if domain in seen:
                yield f"domain {domain} is on two hosts, {held[seen[domain]]['name']} and {machine['name']}"
            seen[domain] = host
            if state == "running" and running.get(domain) != host:
                yield f"domain {domain} runs on {machine['name']}, where it should not"
    for key, host in running.items():
        if seen.get(key) != host:
            yield f"instance {key} is called running and is not on its host"
    for instance in (each for each in instances if each.activity or each.state == InstanceState.UNKNOWN):
        yield f"{instance} is {instance.state} {instance.activity}"


def _volumes(held: dict[str, Any]) -> Iterator[str]:
    rows = Volume.objects.filter(primary_storage__zone__name=NAME)
    booked = {(str(host), str(uuid)) for uuid, host in rows.values_list("pk", "host")}
    files = {(host, uuid) for host, machine in held.items() for uuid in machine["volumes"]}
    for host, uuid in sorted(files - booked):
        yield f"the file of volume {uuid} lies on {held[host]['name']} and is in no book"
    for host, uuid in sorted(booked - files):
        yield f"volume {uuid} is not on its host {held.get(host, {}).get('name', host)}"


def _leases(held: dict[str, Any]) -> Iterator[str]:
    placed = Nic.objects.filter(l3__l2__zone__name=NAME, host__isnull=False)
    booked = {(str(host), mac, address) for host, mac, address in placed.values_list("host", "mac", "address")}
    served = {(host, mac, address) for host, machine in held.items() for mac, address in machine["leases"]}
    for host, mac, address in sorted(served - booked):
        yield f"{held[host]['name']} serves {address} to {mac}, which is in no book"
    for host, mac, address in sorted(booked - served):
        yield f"{held.get(host, {}).get('name', host)} does not serve {address} to {mac}"
