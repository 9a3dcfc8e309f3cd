"""What must hold of database and machines: at every moment, and when everything has settled."""

from collections import Counter, defaultdict
from typing import Any

from cloud.infra.models import HostCapacity
from cloud.jobs.models import CleanUp, Job, JobResource, JobState
from compute.models import Instance, InstanceState
from network.models import AddressPurpose, IpAddress, Nic
from storage.drivers.fake import WORLDS
from storage.models import CacheState, Image, ImageCache, Volume, VolumeState
from tests.chaos.fleet import Fleet
from tests.compute.scenarios import LEAKED
from tests.compute.world import World


def always(world: World) -> None:
    """No moment is without this: nothing is promised twice, nobody has another's address, nothing runs twice."""
    world.expect_sums()
    addresses = list(IpAddress.objects.filter(purpose=AddressPurpose.NIC).values_list("l3_id", "address"))
    assert len(addresses) == len(set(addresses))
    for held in HostCapacity.objects.select_related("host"):
        assert held.cpu_used >= 0, held.host.name
        assert held.memory_used_bytes >= 0, held.host.name
    live = set(Job.objects.live().values_list("pk", flat=True))
    holders = set(JobResource.objects.filter(is_held=True).values_list("job_id", flat=True))
    owing = set(CleanUp.objects.owed().values_list("job_id", flat=True))
    assert holders <= live | owing, "an ended job holds a resource"
    _nothing_runs_twice(world)


def _nothing_runs_twice(world: World) -> None:
    running = [(uuid, domain) for uuid, domain in _domains(world.machines) if domain.state == "running"]
    twice = [uuid for uuid, count in Counter(uuid for uuid, _domain in running).items() if count > 1]
    assert not twice, f"running on two hosts: {twice}"
    owners: dict[Any, set[str]] = defaultdict(set)
    for uuid, domain in running:
        for nic in domain.spec.nics:
            if nic.address:
                owners[nic.address].add(uuid)
    shared = {address: uuids for address, uuids in owners.items() if len(uuids) > 1}
    assert not shared, f"two running machines with one address: {shared}"
    # What runs still has its address and its disks: nobody else can have been given them.
    nics = dict(Nic.objects.values_list("address", "instance_uuid"))
    for address, uuids in owners.items():
        holder = nics.get(address)
        assert holder is None or str(holder) in uuids, f"{address} of a running machine is another's"


def settled(world: World) -> None:
    """Nothing moves any more: no job is at work or stuck, no lock is held, and records and machines tell the same."""
    always(world)
    assert not Job.objects.live().exists()
    assert not JobResource.objects.filter(is_held=True).exists()
    assert not CleanUp.objects.owed().exists()
    stuck = Job.objects.filter(state=JobState.STUCK)
    assert not stuck.exists(), [(job.workflow, job.error) for job in stuck]
    busy = Instance.objects.exclude(activity="")
    assert not busy.exists(), list(busy.values_list("name", "activity"))
    _domains_agree(world)
    _disks_agree(world)
    images = dict(Image.objects.filter(backup_storage=world.server).values_list("uuid", "content_sha256"))
    stored = set(WORLDS[world.server.path].stored)
    assert stored <= {str(key) for key in images}, "image files of nobody"
    assert not any(digest for key, digest in images.items() if str(key) not in stored), "images without their files"


def _disks_agree(world: World) -> None:
    for host in world.hosts:
        disk = world.machines.disk(host.agent, world.storage.path)
        volumes = {str(key): state for key, state in Volume.objects.filter(host=host).values_list("uuid", "state")}
        assert disk.volumes.keys() - {LEAKED} <= volumes.keys(), f"{host.name}: files of nobody"
        lost = {state for key, state in volumes.items() if key not in disk.volumes}
        assert lost <= {VolumeState.DELETED}, f"{host.name}: volumes without their files"
        kept = ImageCache.objects.filter(primary_storage=world.storage, host=host)
        assert set(kept.values_list("state", flat=True)) <= {CacheState.READY}
        cached = {str(key) for key in kept.values_list("image_uuid", flat=True)}
        assert disk.images.keys() == cached, (host.name, set(disk.images), cached)
    assert not Volume.objects.filter(state=VolumeState.CREATING).exists()


def _domains_agree(world: World) -> None:
    rows = {str(row.pk): row for row in Instance.objects.select_related("host")}
    assert not set(Instance.objects.values_list("state", flat=True)) & {
        InstanceState.UNKNOWN,
        InstanceState.CREATED,
    }, list(Instance.objects.values_list("name", "state", "state_reason"))
    unknown = [uuid for uuid, _domain in _domains(world.machines) if uuid not in rows]
    assert not unknown, f"domains of nobody: {unknown}"
    for host in world.hosts:
        domains = world.machines.hypervisor(host.agent)._domains
        running = {uuid for uuid, domain in domains.items() if domain.state == "running"}
        known = {uuid for uuid, row in rows.items() if row.state == InstanceState.RUNNING and row.host_id == host.pk}
        assert running == known, f"{host.name}: runs {running}, should run {known}"
        served = {
            str(entry.ip) for server in world.machines.network(host.agent).servers.values() for entry in server.hosts
        }
        placed = {str(address) for address in Nic.objects.filter(host=host).values_list("address", flat=True)}
        assert served == placed, f"{host.name}: DHCP serves {served}, NICs have {placed}"


def _domains(machines: Any) -> list[tuple[str, Any]]:
    assert isinstance(machines, Fleet)
    return [(uuid, domain) for node in machines.nodes.values() for uuid, domain in node.hypervisor._domains.items()]
