"""How each workflow comes about: what its verb acts on, and the verb. `tests/chaos` does its worst to each at each
step; a workflow without a scenario here, or in ELSEWHERE, is a failing test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloud.common.doctor import Finding
from cloud.infra.models import QuarantinedThing
from cloud.infra.services import hosts, quarantine
from cloud.jobs.models import Job
from compute.services import instances
from compute.workflows.recycle import ReleaseBelongings
from storage.doctor import place_of
from storage.drivers.base import VolumeInfo
from storage.drivers.fake import WORLDS
from storage.services import backup_storages, images, primary_storages
from storage.workflows.detach_primary_storage import LeaveClusters
from storage.workflows.expunge_image import RuleOutRecovery
from storage.workflows.steps import DeleteVolumes
from storage.workflows.waiting import ImagesLeaveHosts
from tests.compute.world import GIB, IMAGE_DATA, World
from tests.factories.infra import HostFactory
from tests.factories.storage import BackupStorageFactory

LEAKED = "11111111-2222-4333-8444-555555555555"
IMAGE_URL = "http://203.0.113.1/another.qcow2"

# Enrolment speaks SSH with a machine: its own tests fail it at each step, on a machine of their own.
ELSEWHERE = {
    "host.add": "tests/cloud/infra/test_infra_enrolment.py",
    "host.reconnect": "tests/cloud/infra/test_infra_enrolment.py",
    # These change no row but a release's number, or nothing that could be taken back.
    "agent.upgrade": "tests/cloud/infra/test_infra_upgrade.py",
    "agent.upgrade_all": "tests/cloud/infra/test_infra_upgrade.py",
    "agent.revoke": "tests/cloud/infra/test_infra_certificates.py",
    "backup_storage.add": "tests/cloud/infra/test_infra_enrolment.py",
    "backup_storage.reconnect": "tests/cloud/infra/test_infra_enrolment.py",
}


def nothing(world: World) -> None:
    return None


@dataclass(frozen=True)
class Scenario:
    """`verb(world, made)` opens the job on what `prepare(world)` made.

    `is_final` names the steps after which a failure leaves something undone for good: there the rows need not be as
    before, but doing it again must end well.
    """

    verb: Callable[[World, Any], Job]
    prepare: Callable[[World], Any] = nothing
    is_final: frozenset[str] = field(default_factory=frozenset)
    # What a machine has lost is not brought back: there the rows alone are as before.
    is_one_way: bool = False


def _deleted_image(world: World) -> Any:
    images.delete(world.image, actor=world.admin)
    return world.image


def _add_image(world: World, _made: None) -> Job:
    world.machines.web[IMAGE_URL] = IMAGE_DATA
    return images.add(actor=world.admin, name="another", url=IMAGE_URL)[1]


def _detached(world: World) -> Any:
    world.act(primary_storages.detach, world.storage, cluster=world.cluster)
    return world.storage


def _with_cached_image(world: World) -> Any:
    instance = world.destroyed()
    world.act(instances.expunge, instance)
    return world.storage


def _lone_host(world: World) -> Any:
    return HostFactory(name="lone", cluster=world.cluster)


def _lone_server(world: World) -> Any:
    return BackupStorageFactory(name="lone")


def _add_storage(world: World, _made: None) -> Job:
    asked = {"name": "second", "zone": world.zone, "path": "/srv/second", "clusters": [world.cluster]}
    return primary_storages.add(actor=world.admin, **asked)[1]


def _leak(world: World) -> Finding:
    """A volume's file that nobody knows."""
    name = LEAKED
    store = WORLDS[world.storage.path]
    store.volumes[name] = VolumeInfo(GIB, "qcow2", f"{world.storage.path}/volumes/{name}.qcow2", None)
    thing = {"place": place_of(world.storage), "kind": "volume", "name": name}
    return Finding("volume_leak", "volume", name, name, "", agent=str(world.host.agent_id), thing=thing)


def _set_aside(world: World, finding: Finding) -> Job:
    return quarantine.set_aside(finding.agent, [finding], actor=world.admin)


def _quarantined(world: World) -> Any:
    job = _set_aside(world, _leak(world))
    world.settle()
    world.ended(job)
    return QuarantinedThing.objects.get().pk


def _again(verb: Callable[..., Job], **params: Any) -> Callable[[World, Any], Job]:
    def act(world: World, made: Any) -> Job:
        made.refresh_from_db()
        return verb(made, actor=world.admin, **params)

    return act


def _of_cluster(verb: Callable[..., Job]) -> Callable[[World, Any], Job]:
    return lambda world, made: _again(verb, cluster=world.cluster)(world, made)


SHREDDED = frozenset({DeleteVolumes.__name__, ReleaseBelongings.__name__})
EMPTIED = frozenset({ImagesLeaveHosts.__name__, LeaveClusters.__name__})
SCENARIOS = {
    "instance.create": Scenario(lambda world, _made: world.begin()[1]),
    "instance.create_only": Scenario(lambda world, _made: world.begin(is_started=False)[1]),
    "instance.start": Scenario(_again(instances.start), World.stopped),
    "instance.stop": Scenario(_again(instances.stop), World.create, is_one_way=True),
    "instance.reboot": Scenario(_again(instances.reboot), World.create),
    "instance.destroy": Scenario(_again(instances.destroy), World.create, is_one_way=True),
    "instance.recover": Scenario(_again(instances.recover), World.destroyed),
    "instance.expunge": Scenario(_again(instances.expunge), World.destroyed, SHREDDED, is_one_way=True),
    "image.add": Scenario(_add_image),
    "image.expunge": Scenario(
        _again(images.expunge), _deleted_image, frozenset({RuleOutRecovery.__name__}), is_one_way=True
    ),
    "primary_storage.add": Scenario(_add_storage),
    "primary_storage.attach": Scenario(_of_cluster(primary_storages.attach), _detached),
    "primary_storage.detach": Scenario(_of_cluster(primary_storages.detach), _with_cached_image, EMPTIED),
    "primary_storage.delete": Scenario(_again(primary_storages.delete), _with_cached_image, EMPTIED),
    "doctor.fix": Scenario(_set_aside, _leak),
    "doctor.restore": Scenario(lambda world, made: quarantine.restore([made], actor=world.admin)[0], _quarantined),
    "doctor.purge": Scenario(lambda world, made: quarantine.purge([made], actor=world.admin)[0], _quarantined),
    "host.delete": Scenario(_again(hosts.delete), _lone_host),
    "backup_storage.delete": Scenario(_again(backup_storages.delete), _lone_server),
}
