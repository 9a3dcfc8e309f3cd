"""What an instance holds of its host and of the network, written down and given back: each exactly once."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from django.db import transaction

from cloud.accounts.services import quotas
from cloud.celery import app
from cloud.common.quotas import Amounts, total
from cloud.infra.models import Host
from cloud.infra.services import capacity
from cloud.jobs import agents
from compute.models import Instance
from network.models import Nic
from network.services import nics
from storage.models import Volume, copies

LOOK_AGAIN_S = 2.0


def book(instance: Instance, host: Host) -> None:
    """Write down that the instance's room is booked on `host` (already taken by `reserve`)."""
    instance.host, instance.is_reserved = host, True
    Instance.objects.filter(pk=instance.pk).update(host=host, is_reserved=True)


def free_room(instance_uuid: Any) -> dict[UUID, Amounts]:
    """Give the instance's room back, once: only who turns `is_reserved` off does it. Absent is fine.

    Returns what its project has less by that, which the caller gives to `quotas` when it takes nothing more.
    """
    booked = Instance.objects.filter(pk=instance_uuid, is_reserved=True).select_related("host").first()
    if booked and Instance.objects.filter(pk=instance_uuid, is_reserved=True).update(is_reserved=False):
        assert booked.host is not None  # a constraint of the table
        capacity.give_back(booked.host, cpu=booked.cpu, memory_bytes=booked.memory_bytes)
        return {booked.project_id: booked.booked}
    return {}


def leave_host(instance_uuid: Any) -> None:
    """The instance does not run any more: its room is given back, its NICs are unplugged. Runs any number of times."""
    quotas.give_all(_leave(instance_uuid))


def _leave(instance_uuid: Any) -> dict[UUID, Amounts]:
    instance = Instance.objects.filter(pk=instance_uuid).first()
    if instance is None:
        return {}
    freed = free_room(instance_uuid)
    nics.unplace(list(Nic.objects.filter(instance_uuid=instance_uuid, host__isnull=False)))
    if instance.host_id:
        Instance.objects.filter(pk=instance_uuid).update(last_host=instance.host_id, host=None)
    return freed


def look_again(agent: str | None) -> None:
    """Have the host's inventory looked at soon after this commits: an event that came while a job was at work was left
    to the job. Several jobs of a host within seconds are one look."""
    if agent:
        transaction.on_commit(lambda: _look_soon(agent), robust=True)


def _look_soon(agent: str) -> None:
    if agents.redis().set(f"mica:look:{agent}", 1, nx=True, px=int(LOOK_AGAIN_S * 1000)):
        app.send_task("compute.look", kwargs={"agent": agent}, countdown=LOOK_AGAIN_S, ignore_result=True)


def release_belongings(instance_uuid: Any) -> None:
    """Give back the disk space and the addresses of an instance whose domain and files are gone.

    In the order in which creating takes them, so that neither waits for the other while it is waited for.
    """
    disks = copies.drop_all(Volume.objects.filter(instance_uuid=instance_uuid))
    cards, _wants = nics.drop_all(Nic.objects.filter(instance_uuid=instance_uuid))
    freed: dict[UUID, list[Amounts]] = defaultdict(list)
    for disk in disks:
        freed[disk.project_id].append(disk.amounts)
    for card in cards:
        freed[card.project_id].append(card.amounts)
    quotas.give_all({project: total(amounts) for project, amounts in freed.items()})


def forget(instance_uuid: Any) -> None:
    """The instance is no more; its row goes, once."""
    row = Instance.objects.select_for_update(of=("self",)).filter(pk=instance_uuid).first()
    if row is not None:
        freed = free_room(row.pk)
        row.delete()
        quotas.give(row.project_id, total([{"instances": 1}, *freed.values()]))
