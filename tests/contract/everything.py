"""Some of everything that the API lists, for tests that go through all of its addresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from cloud.accounts.models import Project
from cloud.accounts.services import bootstrap
from cloud.common.actor import platform
from cloud.config import services as config
from cloud.events.services import audit
from cloud.jobs.models import JobState
from compute.models import Instance
from compute.services import instances
from network.models import IpRange
from tests.factories.accounts import AccountFactory, ApiTokenFactory, ProjectFactory, UserFactory, member
from tests.factories.compute import InstanceFactory, InstanceOfferingFactory, UnknownDomainFactory
from tests.factories.infra import ClusterFactory, HostFactory, ZoneFactory
from tests.factories.storage import (
    BackupStorageFactory,
    DiskOfferingFactory,
    ImageFactory,
    PrimaryStorageFactory,
    VolumeFactory,
    storage_on,
)
from tests.network import factories as networks

SETTINGS = ("instance.expunge_delay_s", "host.cpu_overprovisioning", "no.such_setting")
# The names that requests use for references, and the list that they are of.
REFERENCES = {
    "project": "projects",
    "account": "accounts",
    "user": "users",
    "zone": "zones",
    "cluster": "clusters",
    "clusters": "clusters",
    "host": "hosts",
    "backup_storage": "backup-storages",
    "primary_storage": "primary-storages",
    "image": "images",
    "instance_offering": "instance-offerings",
    "disk_offering": "disk-offerings",
    "l2": "l2-networks",
    "l3": "l3-networks",
    "l3_network": "l3-networks",
    "pool": "pools",
    "scope_uuid": "clusters",
}


@dataclass(frozen=True)
class Everything:
    """Rows by the name of their list. The first one is in use, as most are; the last one is free to go."""

    rows: dict[str, Sequence[Model]]

    def key(self, prefix: str, index: int = 0) -> str:
        """The key of a row, as addresses have it."""
        if prefix == "settings":
            return SETTINGS[index % len(SETTINGS)]
        rows = self.rows[prefix]
        return str(rows[index % len(rows)].pk)

    def reference(self, field: str) -> str | None:
        """The key that a request may give in this field; None where the field is no reference."""
        prefix = REFERENCES.get(field)
        return self.key(prefix) if prefix else None


def populate(project: Project | None = None) -> Everything:
    """Make it; what tenants may have belongs to `project`, by default the platform's."""
    project = project or bootstrap.admin_project()
    cluster = ClusterFactory()
    host = HostFactory(cluster=cluster)
    host.agent.facts = {"nics": networks.cards("10.99.1.11")}
    host.agent.save()
    storage = storage_on(host).primary_storage
    pool = networks.pool(cluster.zone, clusters=[cluster])
    l2 = networks.no_vlan(cluster.zone, clusters=[cluster], project=project)
    l3 = networks.l3(l2, project=project, dns=["10.0.0.53"], domain="example.org")
    IpRange.objects.filter(l3=l3).update(project=project)
    image = ImageFactory(project=project)
    running = InstanceFactory.running(
        place=host, project=project, image=image, instance_offering=InstanceOfferingFactory(), ssh_keys=["ssh-rsa x"]
    )
    stopped, destroyed, busy = (
        InstanceFactory(project=project, place=host, state=state) for state in ("stopped", "destroyed", "destroyed")
    )
    nic = networks.nic(l3, project=project, instance_uuid=running.pk, instance_name=running.name)
    queued, ended = _jobs(busy, destroyed)
    config.change(SETTINGS[0], value=60, actor=platform("test"))
    return Everything(
        {
            "accounts": [project.account, AccountFactory()],
            "agents": [host.agent],
            "api-tokens": [ApiTokenFactory(user=member(project=project))],
            "audit-records": [audit.record("test", actor=platform("test"), resource=running, job=queued)],
            "backup-storages": [image.backup_storage, BackupStorageFactory()],
            "clusters": [cluster, ClusterFactory()],
            "disk-offerings": [DiskOfferingFactory()],
            "hosts": [host, HostFactory(cluster=cluster)],
            "images": [image, ImageFactory(project=project, state="deleted"), ImageFactory(project=project)],
            "instance-offerings": [running.instance_offering],
            "instances": [running, stopped, destroyed, busy],
            "ip-addresses": [l3.addresses.get(holder=nic.pk)],
            "ip-ranges": [l3.ranges.get(), networks.ip_range(project, cidr="192.168.61.0/24")],
            "jobs": [queued, ended],
            "l2-networks": [l2, pool, networks.no_vlan(cluster.zone, name="free")],
            "l3-networks": [l3, networks.l3(networks.vxlan(pool), project=project, cidr="10.7.0.0/24")],
            "nics": [nic],
            "pools": [pool],
            "primary-storages": [storage, PrimaryStorageFactory(zone=cluster.zone)],
            "projects": [project, ProjectFactory(account=project.account)],
            "users": [member(project=project), UserFactory()],
            "volumes": [VolumeFactory(project=project, instance_uuid=running.pk, primary_storage=storage)],
            "unknown-domains": [UnknownDomainFactory(host=host)],
            "zones": [cluster.zone, ZoneFactory()],
        }
    )


def _jobs(busy: Instance, free: Instance) -> tuple[Any, Any]:
    """One that waits for its worker, and one that has ended."""
    actor = platform("test")
    queued, ended = (instances.recover(instance, actor=actor) for instance in (busy, free))
    type(ended).objects.filter(pk=ended.pk).update(state=JobState.SUCCEEDED, finished_at=ended.created_at)
    ended.resources.update(is_held=False)
    Instance.objects.filter(pk=free.pk).update(activity="")
    return queued, ended
