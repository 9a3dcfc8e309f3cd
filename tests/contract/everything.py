"""One of everything that the API lists, for tests that go through all of its addresses."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from cloud.accounts.models import Project
from cloud.accounts.services import bootstrap
from cloud.common.actor import platform
from cloud.config import services as config
from cloud.events.services import audit
from cloud.jobs import services as jobs
from compute.models import Instance
from compute.services import instances
from network.models import IpRange
from tests.factories.accounts import ApiTokenFactory, ProjectFactory, member
from tests.factories.compute import InstanceFactory, InstanceOfferingFactory
from tests.factories.infra import ClusterFactory, HostFactory
from tests.factories.storage import DiskOfferingFactory, ImageFactory, VolumeFactory, storage_on
from tests.network import factories as networks

SETTING = "instance.expunge_delay_s"


@dataclass(frozen=True)
class Everything:
    """A row of each list by the list's name, and by the names that requests use for references to it."""

    rows: dict[str, Model]

    def key(self, prefix: str) -> str:
        return SETTING if prefix == "settings" else str(self.rows[prefix].pk)

    def reference(self, field: str) -> str | None:
        """The key that a request may give in this field; None where the field is no reference."""
        prefix = REFERENCES.get(field)
        return self.key(prefix) if prefix else None


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


def populate(project: Project | None = None) -> Everything:
    """Make one of everything; what belongs to tenants belongs to `project`, by default the platform's."""
    project = project or bootstrap.admin_project()
    cluster = ClusterFactory()
    host = HostFactory(cluster=cluster)
    host.agent.facts = {"nics": networks.cards("10.99.1.11")}
    host.agent.save()
    capacity = storage_on(host)
    pool = networks.pool(cluster.zone, clusters=[cluster])
    l2 = networks.no_vlan(cluster.zone, clusters=[cluster], project=project)
    l3 = networks.l3(l2, project=project, dns=["10.0.0.53"], domain="example.org")
    IpRange.objects.filter(l3=l3).update(project=project)
    image = ImageFactory(project=project)
    user = member(project=ProjectFactory())
    instance = InstanceFactory.running(
        place=host, project=project, image=image, instance_offering=InstanceOfferingFactory(), ssh_keys=["ssh-rsa x"]
    )
    nic = networks.nic(l3, project=project, instance_uuid=instance.pk, instance_name=instance.name)
    volume = VolumeFactory(project=project, instance_uuid=instance.pk, primary_storage=capacity.primary_storage)
    job = _job(instance)
    config.change(SETTING, value=60, actor=platform("test"))
    return Everything(
        {
            "accounts": user.account,
            "agents": host.agent,
            "api-tokens": ApiTokenFactory(user=user),
            "audit-records": audit.record("instance.start", actor=platform("test"), resource=instance, job=job),
            "backup-storages": image.backup_storage,
            "clusters": cluster,
            "disk-offerings": DiskOfferingFactory(),
            "hosts": host,
            "images": image,
            "instance-offerings": instance.instance_offering,
            "instances": instance,
            "ip-addresses": l3.addresses.get(holder=nic.pk),
            "ip-ranges": l3.ranges.get(),
            "jobs": job,
            "l2-networks": l2,
            "l3-networks": l3,
            "nics": nic,
            "pools": pool,
            "primary-storages": capacity.primary_storage,
            "projects": project,
            "users": user,
            "volumes": volume,
            "zones": cluster.zone,
        }
    )


def _job(instance: Instance) -> Any:
    """A job of the project on an instance of its own."""
    stopped = InstanceFactory(project=instance.project, place=instance.host, name=f"busy-{uuid.uuid4().hex[:6]}")
    actor = platform("test")
    job = instances.destroy(stopped, actor=actor)
    parent = jobs.open_batch("instance.destroy", actor=actor, project_id=instance.project_id, count=1)
    job.parent = parent
    job.save(update_fields=["parent"])
    return job
