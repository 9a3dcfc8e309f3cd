"""What is booked when instances are created, and what is refused; no machine is asked yet."""

from typing import Any

import pytest

from cloud.accounts.services import actors
from cloud.common.actor import platform
from cloud.common.errors import Conflict, Exhausted, Invalid, Missing, NoHostFits, NotPermitted, Problem
from cloud.common.models import Availability, Connection
from cloud.config import services as config
from cloud.events.models import AuditRecord
from cloud.infra import secrets
from cloud.infra.models import Host, HostCapacity, HostState
from cloud.jobs.models import Job, JobState
from compute.models import Instance, InstanceState
from compute.services import creation, instances
from compute.services.instances import NicWish
from network.models import Nic
from storage.models import Image, ImageState, StorageCapacity, Volume
from storage.services import volumes
from storage.services.placement import VolumeNeed
from tests.compute.world import GIB, STORAGE_BYTES, World
from tests.factories.accounts import member
from tests.factories.infra import AgentFactory, ClusterFactory, HostFactory, ZoneFactory
from tests.factories.storage import PrimaryStorageFactory
from tests.network import factories as networks


def refused(world: World, problem: type[Problem], code: str, **wish: Any) -> Problem:
    """Creating this fails like that, and leaves everything as it was."""
    before, jobs = world.rows(), Job.objects.count()
    with pytest.raises(problem) as caught:
        world.begin(**wish)
    assert caught.value.code == code, caught.value.detail
    assert world.rows() == before
    assert Job.objects.count() == jobs
    return caught.value


def test_one(still: World) -> None:
    (instance,), job = still.begin("web 1", description="the first", ssh_keys=["ssh-ed25519 AAAA me"], user_data="#!x")
    assert (instance.state, instance.activity, instance.hostname) == (InstanceState.CREATED, "creating", "web-1")
    assert (instance.is_reserved, instance.host in still.hosts) == (True, True)
    assert (instance.zone, instance.cluster) == (still.zone, still.cluster)
    assert (instance.ssh_keys, secrets.unseal(instance.user_data_sealed)) == (["ssh-ed25519 AAAA me"], "#!x")
    assert "#!x" not in str(Instance.objects.filter(pk=instance.pk).values().get())
    assert instance.project_id == still.admin.project
    nic = Nic.objects.get(instance_uuid=instance.pk)
    assert (nic.l3, nic.address, nic.host) == (still.l3, "192.168.50.3", instance.host)
    volumes = Volume.objects.filter(instance_uuid=instance.pk).order_by("device_index")
    assert [(v.name, v.kind, v.size_bytes, v.image) for v in volumes] == [
        ("web 1-root", "root", 10 * GIB, still.image),
        ("web 1-data-1", "data", GIB, None),
    ]
    assert (job.workflow, job.state, job.resource_uuid, job.parent) == (
        "instance.create",
        JobState.QUEUED,
        instance.pk,
        None,
    )
    record = AuditRecord.objects.get(action="instance.create")
    assert (record.resource_uuid, record.actor_name) == (instance.pk, still.admin.name)
    still.expect_sums()


def test_the_root_volume_is_as_large_as_the_image_unless_said(still: World) -> None:
    (instance,), _job = still.begin(root_bytes=0)
    assert Volume.objects.get(instance_uuid=instance.pk, kind="root").size_bytes == still.image.size_bytes


def test_several_are_spread_and_named(still: World) -> None:
    made, parent = still.begin("web-{n}", count=4)
    assert [instance.name for instance in made] == ["web-1", "web-2", "web-3", "web-4"]
    assert sorted(instance.host.name for instance in made) == ["host-1", "host-1", "host-2", "host-2"]
    assert Nic.objects.values("address").distinct().count() == 4
    assert (parent.workflow, parent.children.count()) == ("batch", 4)
    still.expect_sums()


def test_names_of_several_are_told_apart_without_being_asked(still: World) -> None:
    made, _parent = still.begin("web", count=2)
    assert [instance.name for instance in made] == ["web-1", "web-2"]
    (one,), _job = still.begin("lone-{n}")
    assert one.name == "lone-1"


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("Web Server_1", "web-server-1"), ("云主机", "instance"), ("--a--", "a"), ("x" * 100, "x" * 63), ("é.b", "b")],
)
def test_host_names(name: str, hostname: str) -> None:
    assert creation.hostname_of(name) == hostname


def test_all_or_nothing(still: World) -> None:
    refused(still, NoHostFits, "no_host_fits", count=9, memory_bytes=2 * GIB)  # 8 GiB on each of two hosts
    made, _parent = still.begin(count=8, memory_bytes=2 * GIB)
    assert len(made) == 8
    refused(still, NoHostFits, "no_host_fits", memory_bytes=1)
    still.expect_sums()


def test_a_chosen_address(still: World) -> None:
    (instance,), _job = still.begin(nics=[NicWish(still.l3, "192.168.50.77")])
    assert Nic.objects.get(instance_uuid=instance.pk).address == "192.168.50.77"


@pytest.mark.parametrize(
    ("ip", "problem", "code"),
    [
        ("192.168.50.77", Conflict, "address_taken"),
        ("192.168.50.1", Conflict, "address_taken"),
        ("192.168.99.1", Invalid, "address_out_of_range"),
    ],
)
def test_an_address_that_cannot_be_had(still: World, ip: str, problem: type[Problem], code: str) -> None:
    networks.nic(still.l3, ip="192.168.50.77")
    said = refused(still, problem, code, nics=[NicWish(still.l3, ip)])
    assert said.errors["nics.0.ip"]


def test_one_address_is_not_for_several(still: World) -> None:
    said = refused(still, Invalid, "invalid", count=2, nics=[NicWish(still.l3, "192.168.50.77")])
    assert said.errors["nics"]
    refused(still, Conflict, "address_taken", nics=[NicWish(still.l3, "192.168.50.77")] * 2)


def test_the_last_address(still: World) -> None:
    small = networks.l3(still.l3.l2, cidr="10.1.0.0/29", start="10.1.0.5", end="10.1.0.6", gateway="10.1.0.1")
    refused(still, Exhausted, "addresses_exhausted", count=2, nics=[NicWish(small)])  # DHCP has the other one
    (instance,), _job = still.begin(nics=[NicWish(small)])
    assert Nic.objects.get(instance_uuid=instance.pk).address == "10.1.0.6"
    assert refused(still, Exhausted, "addresses_exhausted", nics=[NicWish(small)]).advice


def test_why_no_host_fits_is_said_of_each(still: World) -> None:
    off, away, new = (HostFactory(name=f"host-{word}", cluster=still.cluster) for word in ("off", "away", "new"))
    Host.objects.filter(pk=off.pk).update(availability=Availability.MAINTENANCE)
    Host.objects.filter(pk=away.pk).update(connection=Connection.DISCONNECTED)
    Host.objects.filter(pk=new.pk).update(state=HostState.NEW)
    Host.objects.filter(pk__in=[host.pk for host in still.hosts]).update(availability=Availability.DISABLED)
    HostFactory(name="host-stranger")  # of another cluster: without the network
    HostFactory(
        name="host-bare", cluster=still.cluster, agent=AgentFactory(facts={"nics": networks.cards(provider=False)})
    )
    said = refused(still, NoHostFits, "no_host_fits")
    reasons = {reason["name"]: reason["reason"] for reason in said.extra["reasons"]}
    assert len(reasons) == 7
    assert "maintenance" in reasons["host-off"]
    assert "disabled" in reasons["host-1"]
    assert "disconnected" in reasons["host-away"]
    assert "being added" in reasons["host-new"]
    assert "not attached" in reasons["host-stranger"]
    assert "eth2" in reasons["host-bare"]
    assert {reason["host"] for reason in said.extra["reasons"]} == {
        str(pk) for pk in Host.objects.values_list("pk", flat=True)
    }
    assert said.advice


def test_no_room_for_cpu_or_memory(still: World) -> None:
    for wish in ({"cpu": 41}, {"memory_bytes": 8 * GIB + 1}):
        said = refused(still, NoHostFits, "no_host_fits", **wish)
        assert all("CPU or memory" in str(reason["reason"]) for reason in said.extra["reasons"])
    still.begin(cpu=40, memory_bytes=8 * GIB)


def test_a_host_without_known_hardware(still: World) -> None:
    host = still.hosts[0]
    host.capacity.delete()
    said = refused(still, NoHostFits, "no_host_fits", host=host)
    assert "hardware" in said.extra["reasons"][0]["reason"]


def test_the_place_may_be_narrowed(still: World) -> None:
    for _ in range(2):
        (instance,), _job = still.begin(host=still.hosts[1])
        assert instance.host == still.hosts[1]
    refused(still, NoHostFits, "no_host_fits", zone=ZoneFactory())
    refused(still, NoHostFits, "no_host_fits", cluster=ClusterFactory())
    refused(still, NoHostFits, "no_host_fits", host=still.hosts[0], zone=ZoneFactory())
    (instance,), _job = still.begin(zone=still.zone, cluster=still.cluster)
    assert instance.zone == still.zone


def test_full_storage_of_one_host_leads_to_the_next(still: World) -> None:
    """The scheduler may have seen room that is taken when the volumes are booked."""
    emptiest = still.hosts[0]
    StorageCapacity.objects.filter(host=emptiest).update(used_bytes=STORAGE_BYTES - 12 * GIB)
    made, _parent = still.begin(count=2, root_bytes=5 * GIB, data=[VolumeNeed(4 * GIB)])
    assert {instance.host.name for instance in made} == {"host-1", "host-2"}
    made, _parent = still.begin("more", count=2, root_bytes=5 * GIB, data=[VolumeNeed(4 * GIB)])
    assert {instance.host.name for instance in made} == {"host-2"}


def test_storage_taken_between_looking_and_booking(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    book, taken = volumes.create_all, list[Any]()

    def somebody_else_is_quicker(wanted: Any) -> Any:
        if len(taken) < most:
            taken.append(wanted[0].choice.capacity.host)
            raise volumes.RoomTaken()
        return book(wanted)

    monkeypatch.setattr(volumes, "create_all", somebody_else_is_quicker)
    most = 3
    (instance,), _job = still.begin()
    assert (len(taken), instance.state) == (3, "created")
    assert HostCapacity.objects.get(host=instance.host).cpu_used == 1  # what was booked with the others is not kept
    most = 1000
    before = still.rows()
    with pytest.raises(Exhausted) as caught:
        still.begin()
    assert caught.value.code == "storage_exhausted"
    assert still.rows() == before


def test_storage_exhausted_everywhere(still: World) -> None:
    said = refused(still, NoHostFits, "no_host_fits", root_bytes=STORAGE_BYTES)
    assert all("left" in str(reason["reason"]) for reason in said.extra["reasons"])


def test_a_chosen_storage(still: World) -> None:
    (instance,), _job = still.begin(
        root=VolumeNeed(GIB, primary_storage=still.storage, image=still.image), data=[VolumeNeed(GIB, still.storage)]
    )
    assert {volume.primary_storage for volume in Volume.objects.all()} == {still.storage}
    other = PrimaryStorageFactory(name="other", zone=still.zone)
    with pytest.raises(NoHostFits) as caught:
        still.begin(root=VolumeNeed(GIB, primary_storage=other, image=still.image))
    assert "other" in str(caught.value.detail)
    assert Instance.objects.get() == instance


@pytest.mark.parametrize("state", [state for state in ImageState if state != ImageState.READY])
def test_an_image_that_is_not_ready(still: World, state: ImageState) -> None:
    """Also one whose size is not known yet: it is the image that is not ready, not the size that is missing."""
    Image.objects.update(state=state, size_bytes=0)
    still.image.refresh_from_db()
    refused(still, Conflict, "wrong_state", root_bytes=0)


def test_an_iso_is_not_a_template(still: World) -> None:
    Image.objects.update(media="iso")
    still.image.refresh_from_db()
    refused(still, Conflict, "image_is_iso")


def test_a_root_volume_smaller_than_the_image(still: World) -> None:
    Image.objects.update(size_bytes=2 * GIB)
    still.image.refresh_from_db()
    said = refused(still, Invalid, "volume_smaller_than_image", root_bytes=GIB)
    assert said.advice


def test_a_data_volume_needs_a_size(still: World) -> None:
    refused(still, Invalid, "invalid", data=[VolumeNeed(0)])


def test_rights(still: World) -> None:
    with pytest.raises(NotPermitted) as caught:
        instances.create(still.wish(), actor=actors.of(member("monitor_only")))
    assert caught.value.extra["permission"] == "instance.create"
    with pytest.raises(NotPermitted) as caught:
        instances.create(still.wish(), actor=platform())
    assert caught.value.code == "no_project"
    with pytest.raises(Missing):  # the network is not the tenant's
        instances.create(still.wish(), actor=actors.of(member()))
    assert not Instance.objects.exists()


def test_without_a_nic(still: World) -> None:
    (instance,), job = still.begin(nics=[])
    assert not Nic.objects.exists()
    assert job.context["wants"] == []
    assert instance.is_reserved


def test_settings_of_the_host_count(still: World) -> None:
    config.change("host.cpu_overprovisioning", value=1.0, actor=still.admin)
    refused(still, NoHostFits, "no_host_fits", cpu=5)
    still.begin(cpu=4)
