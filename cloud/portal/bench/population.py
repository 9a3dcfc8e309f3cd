"""A cloud of many rows as one would meet it: sizes of tenants, states, names and births spread unevenly."""

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from django.db import connection

from cloud.accounts.models import Account, Membership, Project, User
from cloud.accounts.roles import PROJECT_MEMBER
from cloud.accounts.services import bootstrap
from cloud.events.models import AuditRecord
from cloud.infra.models import Agent, Cluster, Host, HostCapacity, Zone
from cloud.jobs.models import Job
from cloud.portal.bench.copying import copy
from compute.models import Instance, InstanceOffering
from network.models import IpAddress, L2Network, L3Network, Nic
from storage.models import BackupStorage, Image, PrimaryStorage, Volume

GIB = 1024**3
BORN = datetime(2024, 1, 1, tzinfo=UTC)
LIFE_S = 2 * 365 * 86400
HOSTS, PROJECTS, NETWORKS = 1000, 200, 100
ROLES = ("web", "db", "cache", "queue", "build", "mail", "proxy", "search", "vdi", "ml")
PLACES = ("prod", "stage", "test", "dev", "edge")
STATES = {"running": 700, "stopped": 180, "destroyed": 60, "created": 20, "unknown": 20, "paused": 15, "crashed": 5}
WORKFLOWS = {
    "instance.create": 30,
    "instance.start": 25,
    "instance.stop": 22,
    "instance.reboot": 12,
    "instance.destroy": 8,
    "instance.expunge": 3,
}
ENDS = {"succeeded": 930, "failed": 50, "cancelled": 15, "running": 4, "stuck": 1}

Say = Callable[[str], None]


@dataclass
class Population:
    """What the rows of a table hold on to. `member` is a user of `project`, a tenant of middling size."""

    rows: int
    dice: random.Random = field(default_factory=lambda: random.Random(20260101))  # noqa: S311 - the same rows every time
    projects: list[Project] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    images: list[uuid.UUID] = field(default_factory=list)
    offerings: list[dict[str, Any]] = field(default_factory=list)
    storages: list[uuid.UUID] = field(default_factory=list)
    networks: list[uuid.UUID] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)
    members: list[User] = field(default_factory=list)

    def key(self) -> uuid.UUID:
        return uuid.UUID(int=self.dice.getrandbits(128), version=4)

    def chosen(self, weighted: dict[str, int]) -> str:
        return self.dice.choices(list(weighted), list(weighted.values()))[0]

    def born(self) -> datetime:
        """Bursts, as of a fleet created at once, among what comes one by one."""
        moment = BORN + timedelta(seconds=self.dice.random() * LIFE_S)
        return moment.replace(minute=0, second=0, microsecond=0) if self.dice.random() < 0.1 else moment

    @property
    def project(self) -> Project:
        return self.projects[len(self.projects) // 10]

    @property
    def member(self) -> User:
        return self.members[len(self.projects) // 10]


def fill(rows: int, say: Say) -> Population:
    """Fill the empty database, so that each list has this many rows."""
    made = Population(rows)
    for part in (_tenants, _infrastructure, _sizes, _instances, _volumes, _nics, _jobs, _audit):
        part(made)
        say(f"rows: {part.__name__.strip('_')}")
    return made


def settle() -> None:
    """What PostgreSQL does by itself after a while: look at the new rows, and note which pages all may see."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _tenants(made: Population) -> None:
    bootstrap.ensure_admin()
    accounts = [Account(name=f"account-{n}") for n in range(PROJECTS // 4)]
    Account.objects.bulk_create(accounts)
    made.projects = [
        Project(account=accounts[n % len(accounts)], name=f"project-{n}", is_default=n < len(accounts))
        for n in range(PROJECTS)
    ]
    Project.objects.bulk_create(made.projects)
    # A few large tenants, many small ones.
    made.weights = [1 / (n + 5) for n in range(PROJECTS)]
    made.members = [User(account=project.account, username=f"member-{n}") for n, project in enumerate(made.projects)]
    User.objects.bulk_create(made.members)
    Membership.objects.bulk_create(
        Membership(user=user, project=project, role=PROJECT_MEMBER)
        for user, project in zip(made.members, made.projects, strict=True)
    )


def _infrastructure(made: Population) -> None:
    home = bootstrap.admin_project().pk
    zones = [{"uuid": made.key(), "name": f"zone-{n}", "project_id": home} for n in range(3)]
    clusters = [
        {"uuid": made.key(), "name": f"cluster-{n}", "project_id": home, "zone_id": zones[n % 3]["uuid"]}
        for n in range(20)
    ]
    agents, places = [], []
    for number in range(HOSTS):
        address = str(IPv4Address("10.64.0.1") + number)
        who = {"name": f"host-{number}", "project_id": home, "address": address, "connection": "connected"}
        agents.append({**who, "uuid": made.key(), "kind": "host"})
        cluster = clusters[number % len(clusters)]
        places.append(
            {
                **who,
                "uuid": made.key(),
                "cluster_id": cluster["uuid"],
                "agent_id": agents[-1]["uuid"],
                "state": "ready",
                "cpu_threads": 128,
                "memory_bytes": 512 * GIB,
            }
        )
        made.hosts.append({"host": places[-1]["uuid"], "cluster": cluster["uuid"], "zone": cluster["zone_id"]})
    for model, rows in ((Zone, zones), (Cluster, clusters), (Agent, agents), (Host, places)):
        copy(model, rows)
    sizes = {"cpu_total": 128, "memory_total_bytes": 512 * GIB}
    copy(HostCapacity, ({"host_id": place["uuid"], **sizes} for place in places))
    l2 = {"uuid": made.key(), "name": "flat", "project_id": home, "zone_id": zones[0]["uuid"], "kind": "no_vlan"}
    copy(L2Network, [{**l2, "physical_interface": "eth1"}])
    made.networks = [made.key() for _ in range(NETWORKS)]
    copy(
        L3Network,
        (
            {"uuid": key, "name": f"net-{n}", "project_id": home, "l2_id": l2["uuid"], "mtu": 1500}
            for n, key in enumerate(made.networks)
        ),
    )
    made.storages = [made.key() for _ in range(20)]
    copy(
        PrimaryStorage,
        (
            {
                "uuid": key,
                "name": f"storage-{n}",
                "project_id": home,
                "zone_id": zones[n % 3]["uuid"],
                "path": "/srv/primary",
                "state": "ready",
                "connection": "connected",
            }
            for n, key in enumerate(made.storages)
        ),
    )
    server = {"uuid": made.key(), "name": "images", "project_id": home, "address": "10.63.0.1", "path": "/srv/images"}
    copy(BackupStorage, [{**server, "state": "ready", "connection": "connected"}])
    made.images = [made.key() for _ in range(40)]
    copy(
        Image,
        (
            {
                "uuid": key,
                "name": f"image-{n}",
                "project_id": home,
                "backup_storage_id": server["uuid"],
                "url": "http://images.example/image.qcow2",
                "state": "ready",
                "format": "qcow2",
                "size_bytes": 10 * GIB,
            }
            for n, key in enumerate(made.images)
        ),
    )


def _sizes(made: Population) -> None:
    home = bootstrap.admin_project().pk
    for cpu in (1, 2, 4, 8, 16, 32):
        for factor in (1, 2, 4):
            name, memory = f"{cpu} CPU {cpu * factor} GiB", cpu * factor * GIB
            offering = {"uuid": made.key(), "name": name, "project_id": home, "cpu": cpu, "memory_bytes": memory}
            made.offerings.append(offering)
    copy(InstanceOffering, made.offerings)


def _instances(made: Population) -> None:
    copy(Instance, (_instance(made, number) for number in range(made.rows)))


def _instance(made: Population, number: int) -> dict[str, Any]:
    dice = made.dice
    state, place, offering = made.chosen(STATES), dice.choice(made.hosts), dice.choice(made.offerings)
    is_placed = state in ("running", "paused", "crashed", "unknown")
    name = f"{dice.choice(ROLES)}-{dice.choice(PLACES)}-{number:06d}"
    born = made.born()
    row = {
        "uuid": made.key(),
        "name": name,
        "description": "Made for the monthly close of the books." if dice.random() < 0.2 else "",
        "project_id": dice.choices(made.projects, made.weights)[0].pk,
        "created_at": born,
        "updated_at": born + timedelta(hours=dice.random() * 2000),
        "state": state,
        "activity": "starting" if state == "stopped" and dice.random() < 0.01 else "",
        "state_reason": "The host does not answer." if state == "unknown" else "",
        "zone_id": place["zone"],
        "cluster_id": place["cluster"],
        "host_id": place["host"] if is_placed else None,
        "last_host_id": None if is_placed else place["host"],
        "image_id": dice.choice(made.images),
        "instance_offering_id": offering["uuid"],
        "cpu": offering["cpu"],
        "memory_bytes": offering["memory_bytes"],
        "hostname": name,
        "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzZk0p6bQ7bVg5o0Zk0p6bQ7bVg5o0Zk0p6bQ7bVg5o0 someone"],
        "user_data_sealed": "#cloud-config\npackages: [nginx, postgresql]\n" * dice.choice((0, 0, 1, 40)),
        "settled_at": born,
        "destroyed_at": born + timedelta(days=30) if state == "destroyed" else None,
    }
    made.instances.append({name: row[name] for name in ("uuid", "name", "project_id", "host_id", "created_at")})
    return row


def _volumes(made: Population) -> None:
    dice = made.dice

    def rows() -> Iterator[dict[str, Any]]:
        for instance in made.instances:
            yield {
                "uuid": made.key(),
                "name": f"{instance['name']}-root",
                "project_id": instance["project_id"],
                "created_at": instance["created_at"],
                "kind": "root",
                "state": "ready" if dice.random() < 0.97 else "creating",
                "size_bytes": dice.choice((10, 20, 50, 100, 500)) * GIB,
                "primary_storage_id": dice.choice(made.storages),
                "host_id": instance["host_id"],
                "image_id": dice.choice(made.images),
                "instance_uuid": instance["uuid"],
                "device_index": 0,
            }

    copy(Volume, rows())


def _nics(made: Population) -> None:
    numbers = count()
    cards = []
    for instance in made.instances:
        number = next(numbers)
        mac = "fa:" + ":".join(f"{number >> shift & 255:02x}" for shift in (32, 24, 16, 8, 0))
        cards.append(
            {
                "uuid": made.key(),
                "name": f"{instance['name']}-0",
                "project_id": instance["project_id"],
                "created_at": instance["created_at"],
                "l3_id": made.dice.choice(made.networks),
                "instance_uuid": instance["uuid"],
                "instance_name": instance["name"],
                "device_index": 0,
                "mac": mac,
                "address": str(IPv4Address("10.128.0.1") + number),
                "host_id": instance["host_id"],
            }
        )
    copy(Nic, cards)
    kept = ("name", "project_id", "created_at", "l3_id", "address")
    copy(
        IpAddress,
        (
            {**{name: card[name] for name in kept}, "uuid": made.key(), "purpose": "nic", "holder": card["uuid"]}
            for card in cards
        ),
    )


def _jobs(made: Population) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for instance in made.instances:
            state, born = made.chosen(ENDS), made.born()
            who = made.dice.choice(made.members)
            yield {
                "uuid": made.key(),
                "workflow": made.chosen(WORKFLOWS),
                "state": state,
                "resource_type": "instance",
                "resource_uuid": instance["uuid"],
                "resource_name": instance["name"],
                "project_id": instance["project_id"],
                "actor_uuid": who.pk,
                "actor_name": who.username,
                "cursor": 5,
                "percent": 100.0 if state == "succeeded" else 40.0,
                "error": {"code": "no_room", "title": "No room", "detail": "x" * 80} if state == "failed" else None,
                "created_at": born,
                "started_at": born,
                "finished_at": None if state == "running" else born + timedelta(seconds=7),
            }

    copy(Job, rows())


def _audit(made: Population) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for instance in made.instances:
            who = made.dice.choice(made.members)
            yield {
                "uuid": made.key(),
                "created_at": made.born(),
                "action": made.chosen(WORKFLOWS),
                "actor_uuid": who.pk,
                "actor_name": who.username,
                "via": "token",
                "address": "192.0.2.7",
                "request_id": made.key().hex,
                "project_uuid": instance["project_id"],
                "resource_type": "instance",
                "resource_uuid": instance["uuid"],
                "resource_name": instance["name"],
                "result": "succeeded" if made.dice.random() < 0.95 else "failed",
                "detail": {"changes": {"name": instance["name"]}},
            }

    copy(AuditRecord, rows())
