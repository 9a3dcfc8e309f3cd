"""A planted leak, drift or lack of each kind that the doctor knows; a kind without one is a failing test."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from cloud.accounts.models import QuotaUsage
from cloud.accounts.services import quotas
from cloud.common.models import Connection
from cloud.infra.models import Agent, DesiredSection, HostCapacity, QuarantinedThing
from cloud.jobs.models import CleanUp, Job, JobResource, JobState, JobStep
from compute.messages import DomainSpec
from compute.models import Instance
from compute.services import instances
from network.messages import SeenDevice
from network.models import IpAddress, L3Network, Nic
from network.services import nics
from storage.drivers.base import VolumeInfo
from storage.drivers.fake import WORLDS
from storage.models import CacheState, ImageCache, StorageCapacity, Volume
from tests.compute.world import GIB, World
from tests.factories.infra import HostFactory

Plant = Callable[[World], Any]
PLANTS: dict[str, Plant] = {}
LONG_AGO = timedelta(days=1)


def plant(kind: str) -> Callable[[Plant], Plant]:
    def register(function: Plant) -> Plant:
        PLANTS[kind] = function
        return function

    return register


def _store(world: World) -> Any:
    return WORLDS[world.storage.path]


def _new() -> str:
    return str(uuid.uuid4())


# domains


@plant("unknown_domain")
def _unknown_domain(world: World) -> None:
    world.machines.hypervisor(world.host.agent).add_foreign(_new(), "stranger")


@plant("domain_leak")
def _domain_leak(world: World) -> None:
    world.machines.hypervisor(world.host.agent).start(DomainSpec(_new(), "forgotten", 1, GIB))


@plant("domain_elsewhere")
def _domain_elsewhere(world: World) -> None:
    instance = world.create()
    other = HostFactory(name="other")
    hypervisor = world.machines.hypervisor(other.agent)
    hypervisor.start(DomainSpec(str(instance.pk), instance.name, 1, GIB))
    hypervisor.stop(str(instance.pk), is_forced=True)


@plant("instance_state")
def _instance_state(world: World) -> None:
    instance = world.create()
    world.machines.hypervisor(world.host.agent).crash(str(instance.pk))


@plant("room_leak")
def _room_leak(world: World) -> None:
    instance = world.stopped()
    Instance.objects.filter(pk=instance.pk).update(host=world.host, is_reserved=True)
    HostCapacity.objects.filter(host=world.host).update(cpu_used=1, memory_used_bytes=GIB)


@plant("host_books")
def _host_books(world: World) -> None:
    world.create()
    HostCapacity.objects.filter(host=world.host).update(cpu_used=F("cpu_used") + 3)


# volumes and images


@plant("volume_leak")
def _volume_leak(world: World) -> None:
    name = _new()
    _store(world).volumes[name] = VolumeInfo(GIB, "qcow2", f"/srv/primary/volumes/{name}.qcow2", None)


@plant("stranger_leak")
def _stranger_leak(world: World) -> None:
    _store(world).strangers["volumes/notes.txt"] = 12


@plant("volume_missing")
def _volume_missing(world: World) -> None:
    world.create()
    _store(world).volumes.popitem()


@plant("volume_found")
def _volume_found(world: World) -> None:
    world.create()
    Volume.objects.update(state_reason="Its file is missing on the storage.")


@plant("volume_size")
def _volume_size(world: World) -> None:
    world.create()
    name, info = _store(world).volumes.popitem()
    _store(world).volumes[name] = VolumeInfo(info.size_bytes + 512, info.format, info.path, info.image)


@plant("volume_orphan")
def _volume_orphan(world: World) -> None:
    instance = world.stopped()
    Nic.objects.filter(instance_uuid=instance.pk).delete()
    IpAddress.objects.filter(purpose="nic").delete()
    Instance.objects.filter(pk=instance.pk).delete()
    world.machines.hypervisor(world.host.agent).remove(str(instance.pk))


@plant("storage_books")
def _storage_books(world: World) -> None:
    world.create()
    StorageCapacity.objects.update(used_bytes=F("used_bytes") + 7)


@plant("image_leak")
def _image_leak(world: World) -> None:
    images = WORLDS[world.server.path]
    name = _new()
    images.stored[name] = images.stored[str(world.image.pk)]
    images.content[name] = b"forgotten"


@plant("image_missing")
def _image_missing(world: World) -> None:
    images = WORLDS[world.server.path]
    del images.stored[str(world.image.pk)], images.content[str(world.image.pk)]


@plant("copy_leak")
def _copy_leak(world: World) -> None:
    _store(world).images[_new()] = GIB


@plant("copy_unbooked")
def _copy_unbooked(world: World) -> None:
    _store(world).images[str(world.image.pk)] = world.image.actual_size_bytes


@plant("copy_missing")
def _copy_missing(world: World) -> None:
    world.create()
    _store(world).images.clear()


@plant("copy_orphan")
def _copy_orphan(world: World) -> None:
    lone = HostFactory(name="lone", cluster=world.cluster)
    ImageCache.objects.create(
        image=world.image,
        image_uuid=world.image.pk,
        primary_storage=world.storage,
        host=lone,
        size_bytes=1,
        state=CacheState.PENDING,
    )


# networks


def _stray(world: World, name: str, sort: str) -> None:
    world.machines.network(world.host.agent).strays[name] = SeenDevice(name, sort)


@plant("tap_leak")
def _tap_leak(world: World) -> None:
    _stray(world, "mt-0123456789a", "tun")


@plant("bridge_leak")
def _bridge_leak(world: World) -> None:
    _stray(world, "mb-0123456789a", "bridge")


@plant("uplink_leak")
def _uplink_leak(world: World) -> None:
    _stray(world, "vx-4711", "vxlan")


@plant("dhcp_port_leak")
def _dhcp_port_leak(world: World) -> None:
    _stray(world, "dh-0123456789ab", "veth")


@plant("namespace_leak")
def _namespace_leak(world: World) -> None:
    _stray(world, "l3-0123456789ab", "namespace")


@plant("device_missing")
def _device_missing(world: World) -> None:
    world.machines.network(world.host.agent).bridges.clear()


@plant("dhcp_leak")
def _dhcp_leak(world: World) -> None:
    world.create()
    servers = world.machines.network(world.host.agent).servers
    (l3,) = servers
    first = servers[l3].hosts[0]
    servers[l3].hosts.append(type(first)(_new(), "fa:00:00:00:00:77", "192.168.50.77", "ghost"))


@plant("dhcp_missing")
def _dhcp_missing(world: World) -> None:
    world.create()
    for server in world.machines.network(world.host.agent).servers.values():
        server.hosts.clear()


@plant("address_leak")
def _address_leak(world: World) -> None:
    world.create("named")
    nic = Nic.objects.all()[0]
    IpAddress.objects.create(
        l3=nic.l3, address="192.168.50.99", purpose="nic", holder=uuid.uuid4(), name="ghost", project=nic.project
    )


@plant("address_missing")
def _address_missing(world: World) -> None:
    world.create()
    IpAddress.objects.filter(purpose="nic").delete()


@plant("nic_orphan")
def _nic_orphan(world: World) -> None:
    nics.create(
        L3Network.objects.get(),
        uuid=uuid.uuid4(),
        instance_uuid=uuid.uuid4(),
        instance_name="ghost",
        project=world.l3.project,
        device_index=0,
        actor=world.admin,
    )


@plant("nic_misplaced")
def _nic_misplaced(world: World) -> None:
    world.stopped()
    Nic.objects.update(host=world.host)
    # The host is told of it, as its row says.
    DesiredSection.objects.filter(agent=world.host.agent, section="dhcp").update(wanted=F("wanted") + 1)
    from cloud.infra.services import desired

    desired.send(world.host.agent_id, "dhcp")


# jobs


def _job(world: World, **fields: Any) -> Job:
    """A job on its way, of which nobody is told."""
    instance = world.create()
    job = instances.stop(instance, actor=world.admin)
    world.line.kicks.clear()
    old = timezone.now() - LONG_AGO
    Job.objects.filter(pk=job.pk).update(**{"created_at": old, **fields})
    return job


@plant("job_stalled")
def _job_stalled(world: World) -> None:
    _job(world)


@plant("job_overdue")
def _job_overdue(world: World) -> None:
    _job(world, step_deadline_at=timezone.now() - LONG_AGO, state=JobState.RUNNING, waiting={"nothing": {}})


@plant("job_undoing")
def _job_undoing(world: World) -> None:
    job = _job(world, state=JobState.UNDOING, waiting={"pause": {"until": 0}})
    JobStep.objects.filter(job=job).update(finished_at=timezone.now() - LONG_AGO)


@plant("job_stuck")
def _job_stuck(world: World) -> None:
    instance = world.create()
    Job.objects.filter(resource_uuid=instance.pk).update(state=JobState.STUCK)


@plant("lock_leak")
def _lock_leak(world: World) -> None:
    world.create()
    JobResource.objects.update(is_held=True)


@plant("activity_leak")
def _activity_leak(world: World) -> None:
    Instance.objects.filter(pk=world.create().pk).update(activity="stopping")


# infrastructure


@plant("agent_silent")
def _agent_silent(world: World) -> None:
    Agent.objects.filter(pk=world.host.agent_id).update(connection=Connection.DISCONNECTED)


@plant("section_behind")
def _section_behind(world: World) -> None:
    old = timezone.now() - LONG_AGO
    DesiredSection.objects.filter(section="networks").update(wanted=F("wanted") + 1, behind_since=old)


@plant("section_failing")
def _section_failing(world: World) -> None:
    failure = {"nature": "rejected", "code": "broken", "detail": "as the test wants it"}
    DesiredSection.objects.filter(section="networks").update(failures={"x": failure})


@plant("quarantine_unlisted")
def _quarantine_unlisted(world: World) -> None:
    hypervisor = world.machines.hypervisor(world.host.agent)
    name = _new()
    hypervisor.start(DomainSpec(name, "forgotten", 1, GIB))
    hypervisor.set_aside(_new(), name)


@plant("quarantine_lost")
def _quarantine_lost(world: World) -> None:
    QuarantinedThing.objects.create(
        kind="domain_leak", agent=world.host.agent, keeper="compute.domain", resource_type="domain", name="lost"
    )


@plant("clean_up_owed")
def _clean_up_owed(world: World) -> None:
    job = world.act(instances.stop, world.create())
    owed = {"name": "StopOnHost", "agent": world.host.agent_id, "machine": world.host.name}
    CleanUp.objects.create(job=job, position=0, created_at=timezone.now() - LONG_AGO, **owed)


@plant("quota_books")
def _quota_books(world: World) -> None:
    world.create()
    quotas.change(world.l3.project, actor=world.admin, limits={"instances": 10})
    QuotaUsage.objects.update(used=F("used") + 2)
