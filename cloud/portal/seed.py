"""What a fresh lab cloud is filled with: its machines, networks, an image, offerings, and one running instance.

Every step looks whether its thing is there and is passed over then; nothing that a user deleted is made again once the
lab was filled for the first time.
"""

from collections.abc import Callable
from typing import Any

from django.db import models

from cloud.accounts.models import User
from cloud.accounts.services import actors, bootstrap
from cloud.common.actor import Actor
from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.common.waiting import wait_until
from cloud.config import services as config
from cloud.infra import releases
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.services import agents, clusters, hosts, zones
from cloud.jobs import words
from cloud.jobs.models import Job, JobState
from compute.models import Instance, InstanceOffering, InstanceState
from compute.services import instances, offerings
from compute.services.instances import NicWish, Wish
from network.models import L2Network, L3Network
from network.services import l2, l3
from storage.models import BackupStorage, DiskOffering, Image, PrimaryStorage
from storage.services import backup_storages, disk_offerings, images, primary_storages
from storage.services.placement import VolumeNeed

MIB, GIB = 1024**2, 1024**3
JOB_PATIENCE_S, RETURN_PATIENCE_S = 180, 60
PRIVATE_CIDR, VTEP_CIDR = "192.168.100.0/24", "10.99.1.0/24"


class LabSeed:
    """Fills the lab described by the launcher's document. Raises Problem with the reason when a part of it fails."""

    def __init__(self, lab: dict[str, Any]) -> None:
        self.lab = lab
        bootstrap.ensure_admin()
        self.actor: Actor = actors.of(User.objects.get(username="admin"), via="lab")

    def fill(self) -> str:
        """Do what is missing and wait for what should be there; returns a line about it."""
        if not config.value("lab.is_seeded"):
            self._machines()
            self._networks()
            self._sizes()
            image = self._image()
            if not Instance.objects.filter(name="hello").exists():
                self._instance("hello", image)
            config.change("lab.is_seeded", value=True, actor=self.actor)
        self._wait_for_return()
        self._upgrade_agents()
        return self._summary()

    def _machines(self) -> None:
        zone = Zone.objects.filter(name="lab").first() or zones.create(actor=self.actor, name="lab")
        cluster = Cluster.objects.filter(name="lab").first() or clusters.create(actor=self.actor, name="lab", zone=zone)
        opened = [self._machine(machine, cluster) for machine in self.lab["machines"]]
        if not PrimaryStorage.objects.filter(name="local").exists():
            path = self.lab["paths"]["primary_storage"]
            self._done([job for job in opened if job])
            _, job = primary_storages.add(actor=self.actor, name="local", zone=zone, path=path, clusters=[cluster])
            opened.append(job)
        self._done([job for job in opened if job])

    def _machine(self, machine: dict[str, Any], cluster: Cluster) -> Job | None:
        access = {
            "name": machine["name"],
            "address": machine["address"],
            "ssh_port": machine["ssh_port"],
            "ssh_user": machine["username"],
            "ssh_password": machine["password"],
        }
        model: type[models.Model] = Host if machine["kind"] == "host" else BackupStorage
        if model._default_manager.filter(name=machine["name"]).exists():
            return None
        if machine["kind"] == "host":
            return hosts.add(actor=self.actor, cluster=cluster, **access)[1]
        return backup_storages.add(actor=self.actor, path=self.lab["paths"]["images"], **access)[1]

    def _networks(self) -> None:
        zone, cluster = Zone.objects.get(name="lab"), Cluster.objects.get(name="lab")
        hosts_have = next(m["provider_interface"] for m in self.lab["machines"] if m["kind"] == "host")

        def network(name: str, **what: Any) -> L2Network:
            found = L2Network.objects.filter(name=name).first()
            return found or l2.create(actor=self.actor, zone=zone, name=name, **what)

        pool = network(
            "pool",
            kind="vxlan_pool",
            vtep_cidr=VTEP_CIDR,
            vni_ranges=[{"start": 1000, "end": 1999}],
            clusters=[cluster],
        )
        private = network("private", kind="vxlan", pool=pool)
        provider = network("provider", kind="no_vlan", physical_interface=hosts_have, clusters=[cluster])
        if not L3Network.objects.filter(name="private").exists():
            l3.create(actor=self.actor, l2=private, name="private", ranges=[{"cidr": PRIVATE_CIDR}])
        if not L3Network.objects.filter(name="provider").exists():
            outside = self.lab["provider_network"]
            first = outside["cidr"].rpartition(".")[0]
            addresses = {"start": f"{first}.100", "end": f"{first}.199", "prefix": int(outside["cidr"].split("/")[1])}
            ranges = [{**addresses, "gateway": outside["gateway"]}]
            l3.create(actor=self.actor, l2=provider, name="provider", ranges=ranges)

    def _sizes(self) -> None:
        for name, cpu, memory in (("tiny", 1, 128 * MIB), ("small", 1, 512 * MIB), ("medium", 2, 2 * GIB)):
            if not InstanceOffering.objects.filter(name=name).exists():
                offerings.create(actor=self.actor, name=name, cpu=cpu, memory_bytes=memory)
        if not DiskOffering.objects.filter(name="10 GiB").exists():
            disk_offerings.create(actor=self.actor, name="10 GiB", size_bytes=10 * GIB)

    def _image(self) -> Image:
        wanted = self.lab["image"]
        if not (found := Image.objects.filter(name=wanted["name"]).first()):
            (found,), job = images.add(
                actor=self.actor,
                name=wanted["name"],
                url=wanted["url"],
                checksum=f"sha256:{wanted['sha256']}",
                has_guest_agent=True,
            )
            self._done([job])
            found.refresh_from_db()
        image: Image = found
        return image

    def _instance(self, name: str, image: Image) -> None:
        tiny = InstanceOffering.objects.get(name="tiny")
        wish = Wish(
            name=name,
            image=image,
            instance_offering=tiny,
            cpu=tiny.cpu,
            memory_bytes=tiny.memory_bytes,
            nics=[NicWish(L3Network.objects.get(name="private"))],
            root=VolumeNeed(image=image),
            ssh_keys=[self.lab["ssh_public_key"]],
        )
        _, job = instances.create(wish, actor=self.actor)
        self._done([job])

    def _wait_for_return(self) -> None:
        """Machines that were down when the cloud was sign in again; what ran on them is being brought back."""
        away = Host.objects.filter(availability="enabled").exclude(connection=Connection.CONNECTED)
        returning = Instance.objects.filter(is_wanted_running=True).exclude(state=InstanceState.RUNNING)
        _patiently(lambda: not away.exists(), RETURN_PATIENCE_S)
        _patiently(lambda: not returning.exists(), RETURN_PATIENCE_S)

    def _upgrade_agents(self) -> None:
        """Agents of an earlier checkout become today's, as they do in any cloud; one that cannot is reconnected."""
        passwords = {machine["address"]: machine["password"] for machine in self.lab["machines"]}
        behind = [agent for agent in Agent.objects.connected() if releases.is_outdated(agent.version)]
        if not behind:
            return
        try:
            self._done([agents.upgrade_all(actor=self.actor)])
        except Problem:
            rows: list[Any] = [*Host.objects.select_related("agent"), *BackupStorage.objects.select_related("agent")]
            for row in rows:
                if row.agent and row.address in passwords and releases.is_outdated(row.agent.version):
                    service = hosts if isinstance(row, Host) else backup_storages
                    password = passwords[row.address]
                    self._done([service.reconnect(row, actor=self.actor, ssh_password=password)])

    def _done(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        keys = [job.pk for job in jobs]
        for job in wait_until(lambda: _all_ended(keys), JOB_PATIENCE_S) or []:
            if job.state != JobState.SUCCEEDED:
                said = words.error(job.error) or {}
                raise Problem(
                    f"{words.verb(job)} {job.resource_name}: {said.get('detail', job.state)}",
                    code=said.get("code", "job_failed"),
                    advice=said.get("advice", ""),
                )

    def _summary(self) -> str:
        connected = Host.objects.filter(connection=Connection.CONNECTED).values_list("name", flat=True)
        running = Instance.objects.filter(state=InstanceState.RUNNING).count()
        return f"{', '.join(sorted(connected)) or 'no host'} connected, {running} instances running"


def _patiently(condition: Callable[[], bool], seconds: float) -> None:
    """Wait, but not for ever: what does not come back is shown as it is."""
    try:
        wait_until(condition, seconds)
    except TimeoutError:
        return


def _all_ended(keys: list[Any]) -> list[Job] | None:
    jobs = list(Job.objects.filter(pk__in=keys))
    return jobs if all(job.finished_at for job in jobs) else None
