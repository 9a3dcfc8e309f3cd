"""A small cloud that really works, in memory: what instances need, and everything that could be left behind."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now

from cloud.accounts.services import actors, bootstrap
from cloud.common.wire import Observation
from cloud.infra import observations
from cloud.infra.models import Host, HostCapacity
from cloud.infra.services import desired
from cloud.jobs.models import Job, JobResource, JobState
from compute.messages import EVENT_TOPIC, INVENTORY_TOPIC, DomainEvent, DomainInventory
from compute.models import Instance, InstanceState
from compute.services import instances
from compute.services.instances import NicWish, Wish
from network.models import AddressPurpose, IpAddress, Nic
from network.services.desired import DHCP, NETWORKS
from storage.drivers.base import ImageOrder
from storage.drivers.fake import WORLDS, FakeImageStore
from storage.models import (
    CacheState,
    Image,
    ImageCache,
    PrimaryStorage,
    PrimaryStorageAttachment,
    StorageCapacity,
    Volume,
)
from storage.models.copies import SECTION as STORAGES
from storage.services.placement import VolumeNeed
from tests.compute.simulated import Hosts
from tests.factories.infra import AgentFactory, ClusterFactory, HostFactory, ZoneFactory
from tests.factories.storage import BackupStorageFactory, ImageFactory, PrimaryStorageFactory
from tests.network import factories as networks
from tests.storage.doubles import Watcher, source

GIB = 1024**3
IMAGE_DATA = b"guest" * 1000
STORAGE_BYTES = 100 * GIB


class World:
    """A zone with hosts of 4 threads and 9 GiB, a local storage, an image server with one image, a flat network.

    Everything has a fixed name, so that two worlds in the same state have the same `ledger`.
    """

    def __init__(self, machines: Hosts, *, hosts: int = 1) -> None:
        self.machines, self.line = machines, machines.line
        self.admin = actors.of(bootstrap.ensure_admin())
        self.zone = ZoneFactory(name="zone")
        self.cluster = ClusterFactory(name="cluster", zone=self.zone)
        self.hosts = [self._host(f"host-{number + 1}") for number in range(hosts)]
        self.storage: PrimaryStorage = PrimaryStorageFactory(name="local", zone=self.zone, path="/srv/primary")
        PrimaryStorageAttachment.objects.create(primary_storage=self.storage, cluster=self.cluster)
        for host in self.hosts:
            StorageCapacity.objects.create(
                primary_storage=self.storage,
                host=host,
                total_bytes=STORAGE_BYTES,
                available_bytes=STORAGE_BYTES,
                reported_at=Now(),
            )
        for host in self.hosts:
            machines.disk(host.agent, self.storage.path).total_bytes = STORAGE_BYTES
        self.l3 = networks.l3(networks.no_vlan(self.zone, name="provider", clusters=[self.cluster]), name="flat")
        self.server = BackupStorageFactory(name="images", agent=AgentFactory(name="images", kind="image_server"))
        self.image = self._image("guest")
        for sections in ([NETWORKS], [DHCP, STORAGES]):  # DHCP servers stand on bridges
            with transaction.atomic():
                desired.touch_all([host.agent for host in self.hosts], *sections)
            self.settle()

    @property
    def host(self) -> Host:
        return self.hosts[0]

    def _host(self, name: str) -> Host:
        agent = AgentFactory(name=name, facts={"nics": networks.cards()})
        host: Host = HostFactory(name=name, cluster=self.cluster, agent=agent)
        return host

    def _image(self, name: str) -> Image:
        """An image that its server holds."""
        order, key = ImageOrder("root_template", "qcow2", "", len(IMAGE_DATA), 0), uuid.uuid4()
        store = FakeImageStore(self.server.path)
        kept = store.add_image(str(key), order, open_source=source(IMAGE_DATA), watch=Watcher())
        made: Image = ImageFactory(
            uuid=key,
            name=name,
            backup_storage=self.server,
            size_bytes=kept.size_bytes,
            actual_size_bytes=kept.actual_size_bytes,
            content_sha256=kept.content_sha256,
        )
        return made

    def settle(self) -> None:
        """Let everything happen that is on its way."""
        self.line.run()

    # instances

    def wish(self, name: str = "vm", **changes: Any) -> Wish:
        """One CPU, 1 GiB, a root volume of 10 GiB and a data volume of 1 GiB, one NIC."""
        root = changes.pop("root_bytes", 10 * GIB)
        given: dict[str, Any] = {
            "name": name,
            "image": self.image,
            "nics": [NicWish(self.l3)],
            "root": VolumeNeed(root, image=changes.get("image", self.image)),
            "data": [VolumeNeed(GIB)],
            "cpu": 1,
            "memory_bytes": GIB,
        }
        return Wish(**{**given, **changes})

    def begin(self, name: str = "vm", **changes: Any) -> tuple[list[Instance], Job]:
        """Open the creation, and let nothing happen yet."""
        return instances.create(self.wish(name, **changes), actor=self.admin)

    def create(self, name: str = "vm", **changes: Any) -> Instance:
        """An instance that was created; running, unless it was not to be started."""
        (instance, *_more), job = self.begin(name, **changes)
        self.settle()
        assert self.ended(job).state == JobState.SUCCEEDED, self.ended(job).error
        return self.fresh(instance)

    def act(self, verb: Any, instance: Instance, **params: Any) -> Job:
        """Carry a verb out to its end; its job."""
        job = verb(instance, actor=self.admin, **params)
        self.settle()
        return self.ended(job)

    def stopped(self, name: str = "vm") -> Instance:
        instance = self.create(name)
        self.act(instances.stop, instance)
        return self.fresh(instance)

    def destroyed(self, name: str = "vm") -> Instance:
        instance = self.create(name)
        self.act(instances.destroy, instance)
        return self.fresh(instance)

    @staticmethod
    def fresh(instance: Instance) -> Instance:
        found: Instance = Instance.objects.select_related("host__agent", "cluster__zone").get(pk=instance.pk)
        return found

    @staticmethod
    def ended(job: Job) -> Job:
        found = Job.objects.get(pk=job.pk)
        assert found.finished_at, (found.state, found.cursor, found.waiting)
        return found

    # what hosts tell

    def tell_event(
        self, instance: Any, state: str, reason: str, *, host: Host | None = None, is_ours: bool = True
    ) -> None:
        uuid_, name = (
            (str(instance.pk), instance.name) if isinstance(instance, Instance) else (str(instance), "stranger")
        )
        event = DomainEvent(uuid_, name, state, reason, is_ours)  # type: ignore[arg-type]
        self._tell(host or self.host, EVENT_TOPIC, event.to_document())

    def tell_inventory(self, *, host: Host | None = None) -> None:
        """The host tells all its domains, long after whatever was settled before."""
        Instance.objects.update(settled_at="2001-01-01T00:00:00Z")
        place = host or self.host
        report = DomainInventory(self.machines.hypervisor(place.agent).inventory(), "periodic")
        self._tell(place, INVENTORY_TOPIC, report.to_document())

    def _tell(self, host: Host, topic: str, body: Any) -> None:
        observations.dispatch(Observation(str(host.agent_id), topic, body, 0.0).to_document())

    # what there is

    def ledger(self) -> dict[str, Any]:
        """All that jobs change, by names: rows, promises, and what is on the machines. Cached images may stay."""
        return {**self.rows(), "machines": self.on_machines()}

    def rows(self) -> dict[str, Any]:
        kept = ImageCache.objects.filter(state=CacheState.READY).values("host").annotate(all=Sum("size_bytes"))
        cached = {row["host"]: row["all"] for row in kept}
        capacities = StorageCapacity.objects.select_related("host", "primary_storage")
        return {
            "instances": _rows(
                Instance.objects.all(),
                *("name", "state", "activity", "host__name", "last_host__name", "is_reserved", "is_wanted_running"),
            ),
            "bin": sorted(Instance.objects.exclude(destroyed_at=None).values_list("name", flat=True)),
            "volumes": _rows(
                Volume.objects.all(), "name", "state", "size_bytes", "host__name", "primary_storage__name"
            ),
            "nics": _rows(Nic.objects.all(), "instance_name", "address", "host__name"),
            "addresses": _rows(IpAddress.objects.filter(purpose=AddressPurpose.NIC), "address", "name"),
            "hosts": _rows(HostCapacity.objects.all(), "host__name", "cpu_used", "memory_used_bytes", "cpu_total"),
            "promised": sorted(
                (row.primary_storage.name, row.host.name, row.used_bytes - cached.get(row.host_id, 0), row.is_open)
                for row in capacities
            ),
            "pending copies": ImageCache.objects.filter(state=CacheState.PENDING).count(),
            "images": _rows(Image.objects.all(), "name", "state", "activity"),
            "storages": _rows(PrimaryStorage.objects.all(), "name", "state", "activity"),
            "attached": _rows(PrimaryStorageAttachment.objects.all(), "primary_storage__name", "cluster__name"),
            "infrastructure": _rows(Host.objects.all(), "name", "state", "activity"),
            "held": JobResource.objects.filter(is_held=True).count(),
        }

    def on_machines(self) -> dict[str, Any]:
        names = dict(Instance.objects.values_list("uuid", "name"))
        known = {str(key): name for key, name in names.items()}
        volumes = {str(key): name for key, name in Volume.objects.values_list("uuid", "name")}
        stored = {str(key): name for key, name in Image.objects.values_list("uuid", "name")}
        servers = {
            host.name: sorted(
                entry.ip for server in self.machines.network(host.agent).servers.values() for entry in server.hosts
            )
            for host in self.hosts
        }
        return {
            "domains": {
                host.name: sorted(
                    (known.get(domain.uuid, domain.uuid), domain.state)
                    for domain in self.machines.hypervisor(host.agent).inventory()
                )
                for host in self.hosts
            },
            "files": sorted(
                volumes.get(key, key)
                for host in self.hosts
                for key in self.machines.disk(host.agent, self.storage.path).volumes
            ),
            "images": sorted(stored.get(key, key) for key in WORLDS[self.server.path].stored),
            "dhcp": servers,
        }

    def expect_sums(self) -> None:
        """What is booked is what the rows need: nothing is lost, nothing is counted twice."""
        for host in self.hosts:
            held = HostCapacity.objects.get(host=host)
            booked = Instance.objects.filter(host=host, is_reserved=True)
            needed = booked.aggregate(cpu=Sum("cpu", default=0), memory=Sum("memory_bytes", default=0))
            assert (held.cpu_used, held.memory_used_bytes) == (needed["cpu"], needed["memory"]), host.name
            volumes = Volume.objects.filter(host=host).aggregate(all=Sum("size_bytes", default=0))["all"]
            copies = ImageCache.objects.filter(host=host).aggregate(all=Sum("size_bytes", default=0))["all"]
            used = sum(StorageCapacity.objects.filter(host=host).values_list("used_bytes", flat=True))
            assert used == volumes + copies, host.name
        holders = set(IpAddress.objects.filter(purpose=AddressPurpose.NIC).values_list("holder", flat=True))
        assert holders == set(Nic.objects.values_list("pk", flat=True))
        instances_: Sequence[uuid.UUID] = list(Instance.objects.values_list("pk", flat=True))
        assert not Nic.objects.exclude(instance_uuid__in=instances_).exists()
        assert not Volume.objects.exclude(instance_uuid__in=instances_).exists()
        off = Instance.objects.filter(state__in=[InstanceState.STOPPED, InstanceState.DESTROYED], activity="")
        assert not off.filter(is_reserved=True).exists()


def _rows(queryset: Any, *names: str) -> list[tuple[Any, ...]]:
    return sorted(queryset.values_list(*names), key=str)
