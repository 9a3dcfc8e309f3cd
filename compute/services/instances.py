"""Acts on instances. The only place that changes their state on a user's behalf."""

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from cloud.accounts.models import Project
from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Exhausted, Invalid, NotPermitted, Problem
from cloud.config.services import value
from cloud.events.services import audit
from cloud.infra.models import Cluster, Host, Zone
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from compute.models import Instance, InstanceOffering, InstanceState
from compute.services import scheduler
from compute.services.scheduler import Needs
from compute.workflows import bookings
from compute.workflows.lifecycle import (
    CreateInstance,
    CreateStoppedInstance,
    RebootInstance,
    StartInstance,
    StopInstance,
)
from compute.workflows.recycle import DestroyInstance, ExpungeInstance, RecoverInstance
from network.models import L3Network, Nic
from network.services import nics
from storage.models import Image, Volume, VolumeState
from storage.services import placement as storage_placement
from storage.services import volumes
from storage.services.placement import VolumeNeed

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


@transaction.atomic
def create(wish: Wish, *, actor: Actor) -> tuple[list[Instance], Job]:
    """Make `count` instances and open the job that builds them: one job, or a parent with a child for each.

    Addresses, disk space, CPU and memory are booked here, all or nothing. Raises Invalid with the field, NoHostFits
    with the reason per host, Exhausted or Conflict when an address is not to be had.
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
    parent = (
        jobs.open_batch("instance.create", actor=actor, project_id=project.pk, count=wish.count)
        if wish.count > 1
        else None
    )
    made = [_create_one(wish, name, project, actor, parent) for name in _names(wish)]
    return [instance for instance, _job in made], parent or made[0][1]


def _names(wish: Wish) -> list[str]:
    if wish.count == 1:
        return [wish.name.replace("{n}", "1")]
    pattern = wish.name if "{n}" in wish.name else wish.name + "-{n}"
    return [pattern.replace("{n}", str(number + 1)) for number in range(wish.count)]


def _create_one(wish: Wish, name: str, project: Project, actor: Actor, parent: Job | None) -> tuple[Instance, Job]:
    needs = Needs(
        cpu=wish.cpu,
        memory_bytes=wish.memory_bytes,
        volumes=(wish.root, *wish.data),
        l3_networks=tuple(nic.l3_network for nic in wish.nics),
        zone=wish.zone,
        cluster=wish.cluster,
        host=wish.host,
    )
    key = uuid.uuid4()
    host, made = _place(needs, key, project, name)
    instance = Instance.objects.create(
        uuid=key,
        name=name,
        description=wish.description,
        project=project,
        state=InstanceState.CREATED,
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
        user_data=wish.user_data,
    )
    plugged = [_plug(nic, index, instance, actor) for index, nic in enumerate(wish.nics)]
    wants = nics.place(plugged, host) if wish.is_started else []
    job = jobs.open(
        CreateInstance if wish.is_started else CreateStoppedInstance,
        resource=instance,
        actor=actor,
        parent=parent,
        context=_context(instance, host, volumes=[str(volume.pk) for volume in made], wants=wants),
    )
    return instance, job


def _place(needs: Needs, key: uuid.UUID, project: Project, name: str) -> tuple[Host, list[Volume]]:
    """A host with room, and the volumes booked on its storage; the next host when storage is taken meanwhile."""
    while True:
        try:
            # What is taken back here is not held any longer either: nobody waits for a host that was not chosen.
            with transaction.atomic():
                host = scheduler.reserve(needs)
                return host, [
                    volumes.create(
                        uuid=uuid.uuid4(),
                        name=f"{name}-{'root' if index == 0 else f'data-{index}'}",
                        kind="root" if index == 0 else "data",
                        need=need,
                        host=host,
                        project=project,
                        instance_uuid=key,
                        device_index=index,
                    )
                    for index, need in enumerate(needs.volumes)
                ]
        except Exhausted:
            needs = replace(needs, avoid=needs.avoid | {host.pk})


def _context(instance: Instance, host: Host | None, **more: Any) -> dict[str, Any]:
    context = {"host": str(host.pk) if host else None, "agent": str(host.agent_id) if host and host.agent_id else None}
    return {**context, **more}


def _plug(nic: NicWish, index: int, instance: Instance, actor: Actor) -> Nic:
    """The NIC that was wished for; what is wrong with it is told by its place in the request."""
    try:
        made: Nic = nics.create(
            nic.l3_network,
            uuid=uuid.uuid4(),
            instance_uuid=instance.pk,
            instance_name=instance.name,
            project=instance.project,
            device_index=index,
            ip=nic.ip,
            actor=actor,
        )
    except Problem as problem:
        problem.errors = {f"nics.{index}.{field}": said for field, said in problem.errors.items()}
        raise
    return made


def hostname_of(name: str) -> str:
    """A host name made of an instance's name (RFC 1123 label); names without a usable character become `instance`."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    return label or "instance"


def _place_of(instance: Instance) -> Host | None:
    """The host an instance's volumes bind it to, else where it is or was."""
    bound = Volume.objects.filter(instance_uuid=instance.pk, host__isnull=False).select_related("host").first()
    return bound.host if bound else (instance.host or instance.last_host)


def _volumes_of(instance: Instance) -> list[str]:
    return [str(pk) for pk in Volume.objects.filter(instance_uuid=instance.pk).values_list("pk", flat=True)]


def _locked(instance: Instance) -> Instance:
    """The row as it is now, held until the transaction ends: two acts at once see each other."""
    return (
        Instance.objects.select_for_update(of=("self",))
        .select_related("cluster__zone", "host", "last_host")
        .get(pk=instance.pk)
    )


def _act(permission: str) -> Callable[..., Callable[..., Job]]:
    """An act on one instance: rights, the row locked, all in one transaction."""

    def decorate(function: Callable[..., Job]) -> Callable[..., Job]:
        @transaction.atomic
        def act(instance: Instance, *, actor: Actor, **params: Any) -> Job:
            actor.require(permission, instance)
            return function(_locked(instance), actor=actor, **params)

        act.__name__, act.__doc__ = function.__name__, function.__doc__
        return act

    return decorate


@_act("instance.start")
def start(instance: Instance, *, actor: Actor) -> Job:
    """Start a stopped instance on a host with room for it.

    Raises Conflict if it is not stopped or another job holds it, NoHostFits (with the reason per host).
    """
    instance.expect_state(InstanceState.STOPPED, InstanceState.CREATED, InstanceState.CRASHED)
    bookings.give_back(instance.pk)
    plugged = list(Nic.objects.filter(instance_uuid=instance.pk).select_related("l3").order_by("device_index"))
    host = scheduler.reserve(
        Needs(
            cpu=instance.cpu,
            memory_bytes=instance.memory_bytes,
            l3_networks=tuple(nic.l3 for nic in plugged),
            cluster=instance.cluster,
            host=_place_of(instance),
        )
    )
    bookings.book(instance, host)
    wants = nics.place(plugged, host)
    return jobs.open(StartInstance, resource=instance, actor=actor, context=_context(instance, host, wants=wants))


@_act("instance.stop")
def stop(instance: Instance, *, actor: Actor, is_forced: bool = False) -> Job:
    """Shut the guest down, by force after the grace time; `is_forced` switches it off at once."""
    instance.expect_state(InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.CRASHED)
    context = _context(instance, instance.host, is_forced=is_forced, grace_s=value("instance.stop_grace_s"))
    return jobs.open(StopInstance, resource=instance, actor=actor, context=context)


@_act("instance.reboot")
def reboot(instance: Instance, *, actor: Actor, is_forced: bool = False) -> Job:
    """Restart the guest; `is_forced` resets it at once."""
    instance.expect_state(InstanceState.RUNNING)
    context = _context(instance, instance.host, is_forced=is_forced, grace_s=value("instance.stop_grace_s"))
    return jobs.open(RebootInstance, resource=instance, actor=actor, context=context)


@_act("instance.destroy")
def destroy(instance: Instance, *, actor: Actor) -> Job:
    """Switch the instance off and put it into the recycle bin, with its volumes and addresses."""
    instance.expect_state(*(state for state in InstanceState if state != InstanceState.DESTROYED))
    return jobs.open(DestroyInstance, resource=instance, actor=actor, context=_context(instance, _place_of(instance)))


@_act("instance.recover")
def recover(instance: Instance, *, actor: Actor) -> Job:
    """Take the instance out of the recycle bin, stopped."""
    instance.expect_state(InstanceState.DESTROYED)
    if Volume.objects.filter(instance_uuid=instance.pk, state=VolumeState.DELETED).exists():
        raise Conflict(_("Its volumes are being deleted; it cannot be recovered any more."), code="too_late")
    return jobs.open(RecoverInstance, resource=instance, actor=actor, context=_context(instance, _place_of(instance)))


@_act("instance.expunge")
def expunge(instance: Instance, *, actor: Actor) -> Job:
    """Delete a destroyed instance for good: its files first, its addresses and its row last."""
    instance.expect_state(InstanceState.DESTROYED)
    context = _context(instance, _place_of(instance), volumes=_volumes_of(instance))
    return jobs.open(ExpungeInstance, resource=instance, actor=actor, context=context)


@transaction.atomic
def update(instance: Instance, *, actor: Actor, **changes: Any) -> Instance:
    """Change the name or the description."""
    actor.require("instance.update", instance)
    instance = _locked(instance)
    if instance.state == InstanceState.DESTROYED:
        raise Conflict(_("The instance is in the recycle bin."), advice=_("Recover it first."))
    for field in ("name", "description"):
        if field in changes:
            setattr(instance, field, changes[field])
    instance.save(update_fields=["name", "description", "updated_at"])
    audit.record("instance.update", actor=actor, resource=instance, detail=changes)
    return instance
