"""Making instances: what a caller may wish for, and the rows that one or many of them take, all or nothing."""

import re
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from cloud.accounts.models import Project
from cloud.accounts.services import quotas
from cloud.common.actor import Actor
from cloud.common.errors import Invalid, NotPermitted
from cloud.common.quotas import total
from cloud.common.turns import in_turns
from cloud.infra import secrets
from cloud.infra.models import Cluster, Host, Zone
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from cloud.jobs.services import Opening
from compute.models import Instance, InstanceOffering, InstanceState
from compute.services import scheduler
from compute.services.scheduler import Needs, Place
from compute.workflows.lifecycle import CreateInstance, CreateStoppedInstance
from network.models import L3Network, Nic
from network.services import nics
from network.services.nics import NewNic
from storage.models import Image, Volume
from storage.services import placement as storage_placement
from storage.services import volumes
from storage.services.placement import VolumeNeed
from storage.services.volumes import NewVolume

MOST_AT_ONCE = 100


@dataclass(frozen=True)
class NicWish:
    """A NIC to make: its network and, for one instance only, its address."""

    l3_network: L3Network
    ip: str | None = None


@dataclass(frozen=True)
class Wish:
    """What a caller of `create` asks for, resolved to rows the caller may see."""

    name: str
    image: Image
    nics: Sequence[NicWish]
    root: VolumeNeed
    data: Sequence[VolumeNeed] = ()
    cpu: int = 0
    memory_bytes: int = 0
    instance_offering: InstanceOffering | None = None
    count: int = 1
    description: str = ""
    ssh_keys: Sequence[str] = ()
    user_data: str = ""
    zone: Zone | None = None
    cluster: Cluster | None = None
    host: Host | None = None
    is_started: bool = True

    @property
    def needs(self) -> Needs:
        return Needs(
            cpu=self.cpu,
            memory_bytes=self.memory_bytes,
            volumes=(self.root, *self.data),
            l3_networks=tuple(nic.l3_network for nic in self.nics),
            zone=self.zone,
            cluster=self.cluster,
            host=self.host,
        )


@in_turns(scheduler.RoomTaken, volumes.RoomTaken, nics.MacTaken)
def create(wish: Wish, *, actor: Actor) -> tuple[list[Instance], Job]:
    """Make `count` instances and open the job that builds them: one job, or a parent with a child for each.

    Addresses, disk space, CPU and memory are booked here, all or nothing. Raises Invalid with the field, NoHostFits
    with the reason per host, Exhausted or Conflict when an address is not to be had, QuotaExceeded.
    """
    actor.require("instance.create")
    if actor.project is None:
        raise NotPermitted(_("You have no project to create instances in."), code="no_project")
    if wish.count > 1 and any(nic.ip for nic in wish.nics):
        raise Invalid(
            _("Several instances cannot have one address."),
            errors={"nics": [_("Leave the address out when count is above 1.")]},
        )
    storage_placement.expect_usable(wish.image)
    for need in (wish.root, *wish.data):
        storage_placement.size_bytes(need)
    project = Project.objects.get(pk=actor.project)
    # What others wait for is taken in one order by all: hosts, storages, addresses, sections of hosts, the quotas last.
    places = scheduler.reserve_all(wish.needs, wish.count)
    made = [_instance(wish, name, project, place.host) for name, place in zip(_names(wish), places, strict=True)]
    disks = volumes.create_all([new for each, place in zip(made, places, strict=True) for new in _disks(each, place)])
    Instance.objects.bulk_create(made)
    plugged = nics.create_all([new for instance in made for new in _cards(wish, instance)], actor=actor)
    job = _open(wish, made, disks, plugged, actor)
    booked = [{"instances": 1, **instance.booked} for instance in made]
    quotas.take(project, total([*booked, *(disk.amounts for disk in disks), *(card.amounts for card in plugged)]))
    return made, job


def _names(wish: Wish) -> list[str]:
    if wish.count == 1:
        return [wish.name.replace("{n}", "1")]
    pattern = wish.name if "{n}" in wish.name else wish.name + "-{n}"
    return [pattern.replace("{n}", str(number + 1)) for number in range(wish.count)]


def _instance(wish: Wish, name: str, project: Project, host: Host) -> Instance:
    workflow = _workflow(wish)
    return Instance(
        uuid=uuid.uuid4(),
        name=name,
        description=wish.description,
        project=project,
        state=InstanceState.CREATED,
        activity=workflow.activity,
        zone=host.cluster.zone,
        cluster=host.cluster,
        host=host,
        is_reserved=True,
        image=wish.image,
        instance_offering=wish.instance_offering,
        cpu=wish.cpu,
        memory_bytes=wish.memory_bytes,
        hostname=hostname_of(name),
        ssh_keys=list(wish.ssh_keys),
        user_data_sealed=secrets.seal(wish.user_data) if wish.user_data else "",
    )


def _disks(instance: Instance, place: Place) -> list[NewVolume]:
    return [
        NewVolume(
            name=f"{instance.name}-{'root' if index == 0 else f'data-{index}'}",
            kind="root" if index == 0 else "data",
            choice=choice,
            project=instance.project_id,
            instance_uuid=instance.pk,
            device_index=index,
        )
        for index, choice in enumerate(place.choices)
    ]


def _cards(wish: Wish, instance: Instance) -> list[NewNic]:
    return [
        NewNic(
            nic.l3_network,
            instance_uuid=instance.pk,
            instance_name=instance.name,
            project=instance.project,
            device_index=index,
            ip=nic.ip,
            ip_field=f"nics.{index}.ip",
            host=instance.host if wish.is_started else None,
        )
        for index, nic in enumerate(wish.nics)
    ]


def _workflow(wish: Wish) -> type[CreateInstance | CreateStoppedInstance]:
    return CreateInstance if wish.is_started else CreateStoppedInstance


def _open(wish: Wish, made: list[Instance], disks: list[Volume], plugged: list[Nic], actor: Actor) -> Job:
    """The job of the one instance, or the parent of all."""
    hosts = {instance.host for instance in made if instance.host}
    wants = nics.announce(hosts) if wish.is_started and plugged else {}
    volumes_of: dict[Any, list[str]] = defaultdict(list)
    for disk in disks:
        volumes_of[disk.instance_uuid].append(str(disk.pk))
    openings = [
        Opening(
            instance,
            context_of(
                instance.host, volumes=volumes_of[instance.pk], wants=wants.get(instance.host_id or instance.pk, [])
            ),
        )
        for instance in made
    ]
    parent = None
    if wish.count > 1:
        parent = jobs.open_batch("instance.create", actor=actor, project_id=made[0].project_id, count=wish.count)
    opened = jobs.open_many(_workflow(wish), openings, actor=actor, parent=parent)
    return parent or opened[0]


def context_of(host: Host | None, **more: Any) -> dict[str, Any]:
    """What the steps of an instance's job need to know of where it is."""
    context = {"host": str(host.pk) if host else None, "agent": str(host.agent_id) if host and host.agent_id else None}
    return {**context, **more}


def hostname_of(name: str) -> str:
    """A host name made of an instance's name (RFC 1123 label); names without a usable character become `instance`."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    return label or "instance"
