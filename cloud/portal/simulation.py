"""Simulated hosts by the hundred: rows as enrolment leaves them, and the list that the process `simulator` follows.

Everything is in the zone `simulated`, so that nothing of it meets what is real. Growing, shrinking and repeating are
all `resize`.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.accounts.models import User
from cloud.accounts.services import actors, bootstrap
from cloud.agent.simulator.config import ALL, CONFIG, DISKS, FAULTS, save
from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Problem
from cloud.common.faults import Fault
from cloud.common.models import Connection
from cloud.common.waiting import wait_until
from cloud.infra import enrolment, secrets, simulation
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, AgentKind, Cluster, Host, HostState, Hypervisor, Zone
from cloud.infra.services import clusters, zones
from cloud.jobs import agents
from cloud.jobs.models import Job, JobState
from compute.models import Instance, InstanceOffering
from compute.services import offerings
from network.models import L2Network, L3Network
from network.services import l2, l3
from storage.models import BackupStorage, Image, PrimaryStorage, StorageState
from storage.services import images, primary_storages

NAME = "simulated"
MIB = 1024**2
HOSTS_A_CLUSTER = 50
MOST = 10_000
# RFC 2544: addresses for benchmarks, which nobody routes.
FIRST_ADDRESS = IPv4Address("198.18.0.1")
NETWORK = "10.128.0.0/16"
IMAGE_URL = "http://images.simulated.invalid/small.qcow2"
PRIMARY_PATH, IMAGES_PATH = "/srv/simulated/primary", "/srv/simulated/images"
# As long as one more connects within this time, the others are waited for.
PATIENCE_S = 60.0


def directory() -> Path:
    """Where the simulator looks."""
    return Path(settings.MICA["data"]) / "simulator"


class Simulation:
    """The simulated part of this cloud. Raises Problem with the reason when a part of it cannot be."""

    def __init__(self) -> None:
        bootstrap.ensure_admin()
        self.actor: Actor = actors.of(User.objects.get(username="admin"), via="lab")

    def resize(self, count: int) -> str:
        """Have `count` simulated hosts, connected; returns a line about it. 0 removes all that was simulated."""
        if not 0 <= count <= MOST:
            raise Conflict(_("Between 0 and %(most)d hosts can be simulated.") % {"most": MOST}, code="too_many_hosts")
        if count == 0:
            self._remove_all()
            return "no simulated host is left"
        zone = Zone.objects.filter(name=NAME).first() or zones.create(actor=self.actor, name=NAME)
        network = self._network(zone)
        wanted = [self._cluster(zone, network, n) for n in range(1, -(-count // HOSTS_A_CLUSTER) + 1)]
        self._size()
        server = self._image_server()
        hosts = sorted(_hosts(), key=_number)
        self._remove(hosts[count:])
        self._add(range(len(hosts) + 1, count + 1), wanted)
        self._publish()
        self._wait_connected()
        self._storage(zone, wanted)
        self._image(server)
        return f"{count} simulated hosts connected"

    def _network(self, zone: Zone) -> L2Network:
        found = L2Network.objects.filter(zone=zone, name=NAME).first()
        made = found or l2.create(actor=self.actor, zone=zone, name=NAME, kind="no_vlan", physical_interface="eth1")
        if not L3Network.objects.filter(l2=made, name=NAME).exists():
            l3.create(actor=self.actor, l2=made, name=NAME, ranges=[{"cidr": NETWORK}])
        return made

    def _cluster(self, zone: Zone, network: L2Network, number: int) -> Cluster:
        name = f"{NAME}-{number}"
        found = Cluster.objects.filter(zone=zone, name=name).first()
        made = found or clusters.create(actor=self.actor, name=name, zone=zone, hypervisor=Hypervisor.FAKE)
        l2.attach(network, cluster=made, actor=self.actor) if found is None else None
        return made

    def _size(self) -> None:
        if not InstanceOffering.objects.filter(name="tiny").exists():
            offerings.create(actor=self.actor, name="tiny", cpu=1, memory_bytes=128 * MIB)

    @transaction.atomic
    def _image_server(self) -> BackupStorage:
        found = simulation.among(BackupStorage.objects.all()).first()
        if found is not None:
            return found  # type: ignore[no-any-return]
        agent = Agent.objects.create(**_agent(AgentKind.IMAGE_SERVER, "sim-images", FIRST_ADDRESS))
        enrolment.give_token(agent)
        return BackupStorage.objects.create(
            uuid=agent.pk,
            name=agent.name,
            project=agent.project,
            agent=agent,
            address=agent.address,
            path=IMAGES_PATH,
            state=StorageState.READY,
        )

    @transaction.atomic
    def _add(self, numbers: Sequence[int], places: list[Cluster]) -> None:
        """Rows as enrolment leaves them: the agents' first words bring the rest."""
        made = [Agent(**_agent(AgentKind.HOST, f"sim-{n}", FIRST_ADDRESS + n)) for n in numbers]
        Agent.objects.bulk_create(made)
        Host.objects.bulk_create(
            Host(
                uuid=agent.pk,
                name=agent.name,
                cluster=places[(number - 1) // HOSTS_A_CLUSTER],
                agent=agent,
                address=agent.address,
                state=HostState.READY,
                project=agent.project,
            )
            for number, agent in zip(numbers, made, strict=True)
        )

    def _publish(self) -> None:
        """Write the simulator's list, with access that it may use."""
        password, hashed = _password()
        rows = simulation.among(Agent.objects.all())
        rows.exclude(redis_password_hash=hashed).update(redis_password_hash=hashed)
        simulation.grant(agents.redis(), hashed)
        token = next((row.metrics_token_sealed for row in rows.exclude(metrics_token_sealed="")), "")
        machines = [
            {"uuid": str(row.pk), "name": row.name, "address": row.address, "role": row.kind}
            for row in rows.order_by("created_at", "uuid")
        ]
        places = settings.MICA
        document = {
            "redis_url": _redis_url(),
            "redis_username": redis_acl.user_name(simulation.PATTERN),
            "redis_password": password,
            "metrics_url": places["agent_metrics_url"],
            "metrics_token": secrets.unseal(token) if token else "",
            "ticket_key": (places["pki"] / "ticket.pub").read_text().strip(),
            "machines": machines,
        }
        directory().mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory() / "ca.pem").write_bytes((places["pki"] / "ca.pem").read_bytes())
        save(directory() / CONFIG, document)

    def _wait_connected(self) -> None:
        away = simulation.among(Agent.objects.exclude(connection=Connection.CONNECTED))
        try:
            while left := away.count():
                wait_until(lambda left=left: away.count() < left, PATIENCE_S, every_s=0.5)  # type: ignore[misc]
        except TimeoutError:
            raise Problem(
                _("%(count)d simulated machines are not connected.") % {"count": away.count()},
                code="not_connected",
                advice=_("See the log of the process simulator; ./mica up --simulate starts it."),
            ) from None

    def _storage(self, zone: Zone, wanted: list[Cluster]) -> None:
        storage = PrimaryStorage.objects.filter(zone=zone, name=NAME).first()
        if storage is None:
            _, job = primary_storages.add(actor=self.actor, name=NAME, zone=zone, path=PRIMARY_PATH, clusters=wanted)
            self._done([job])
            return
        known = set(storage.attachments.values_list("cluster", flat=True))
        for cluster in wanted:
            if cluster.pk not in known:
                self._done([primary_storages.attach(storage, actor=self.actor, cluster=cluster)])

    def _image(self, server: BackupStorage) -> None:
        if not Image.objects.filter(backup_storage=server, name=NAME).exists():
            self._done([images.add(actor=self.actor, name=NAME, url=IMAGE_URL, backup_storage=server)[1]])

    def _remove(self, hosts: list[Host]) -> None:
        """Forget hosts on which nothing stands; their agents are off the simulator's list when it is published."""
        keys = [host.pk for host in hosts]
        _expect_none(Instance.objects.filter(Q(host__in=keys) | Q(last_host__in=keys)))
        with transaction.atomic():
            Host.objects.filter(pk__in=keys).delete()
            Agent.objects.filter(pk__in=keys).delete()
        _forget(keys)

    def _remove_all(self) -> None:
        zone = Zone.objects.filter(name=NAME).first()
        if zone is None:
            return
        _expect_none(Instance.objects.filter(zone=zone))
        for image in simulation.among(BackupStorage.objects.all()).values_list("images", flat=True):
            self._done([self._expunged(Image.objects.get(pk=image))]) if image else None
        for storage in PrimaryStorage.objects.filter(zone=zone):
            self._done([primary_storages.delete(storage, actor=self.actor)])
        self._remove(_hosts())
        server = list(simulation.among(BackupStorage.objects.all()))
        BackupStorage.objects.filter(pk__in=[row.pk for row in server]).delete()
        simulation.among(Agent.objects.all()).delete()
        for network in L3Network.objects.filter(l2__zone=zone):
            l3.delete(network, actor=self.actor)
        for lower in L2Network.objects.filter(zone=zone):
            for attached in Cluster.objects.filter(l2_attachments__l2=lower):
                l2.detach(lower, cluster=attached, actor=self.actor)
            l2.delete(lower, actor=self.actor)
        for cluster in Cluster.objects.filter(zone=zone):
            clusters.delete(cluster, actor=self.actor)
        zones.delete(zone, actor=self.actor)
        for name in (CONFIG, FAULTS, DISKS):
            (directory() / name).unlink(missing_ok=True)
        simulation.revoke(agents.redis())
        enrolment.publish_tokens()

    def _expunged(self, image: Image) -> Job:
        if image.state != "deleted":
            images.delete(image, actor=self.actor)
        return images.expunge(image, actor=self.actor)

    def _done(self, opened: list[Job]) -> None:
        for job in opened:
            wait_until(lambda job=job: Job.objects.filter(pk=job.pk).exclude(finished_at=None).exists(), 180)  # type: ignore[misc]
            job.refresh_from_db()
            if job.state != JobState.SUCCEEDED:
                raise Problem((job.error or {}).get("detail", job.state), code="job_failed")


def declare(faults: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Declare faults while the simulator runs, each as [name of a host or `all`, word, …]; no word ends it.

    Returns all that are declared now. Raises ValueError for a word that is none.
    """
    path = directory() / FAULTS
    declared: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, *words in faults:
        Fault.of_words(words)
        if name != ALL and not simulation.among(Agent.objects.filter(name=name)).exists():
            raise ValueError(f"there is no simulated machine {name}")
        if words:
            declared[name] = {"words": list(words), "at": time.time()}
        else:
            declared.pop(name, None)
    save(path, declared)
    return declared


def _expect_none(instances: QuerySet[Instance]) -> None:
    if count := instances.count():
        raise Conflict(
            _("%(count)d instances are on hosts that would go.") % {"count": count},
            code="in_use",
            advice=_("Destroy and expunge them first."),
        )


def _hosts() -> list[Host]:
    return list(simulation.among(Host.objects.all()))


def _number(host: Host) -> int:
    return int(host.name.rpartition("-")[2])


def _agent(kind: AgentKind, name: str, address: IPv4Address) -> dict[str, Any]:
    return {
        "uuid": simulation.new_uuid(),
        "kind": kind,
        "name": name,
        "address": str(address),
        "project": bootstrap.admin_project(),
        "enrolled_at": Now(),
    }


def _password() -> tuple[str, str]:
    """The simulator's password and its hash: the one it has, or a new one."""
    try:
        known = str(json.loads((directory() / CONFIG).read_text())["redis_password"])
    except (OSError, ValueError, KeyError):
        return enrolment.new_password()
    return known, hashlib.sha256(known.encode()).hexdigest()


def _redis_url() -> str:
    """Control's own Redis without control's own password: the simulator runs beside it."""
    scheme, _colon, rest = str(settings.REDIS_URL).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _forget(keys: list[Any]) -> None:
    """Take what the machines left in Redis."""
    left = [name for key in keys for name in (f"agent.{key}", f"agent.{key}.bulk", f"mica:agent:{key}:alive")]
    if left:
        agents.redis().delete(*left)
