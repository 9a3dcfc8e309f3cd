"""What one may do with clusters."""

from typing import Any

from django.db import transaction

from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.deletion import delete as delete_row
from cloud.common.models import Availability
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit
from cloud.infra.models import Cluster, Hypervisor, Zone
from cloud.infra.services import changes


@transaction.atomic
def create(*, actor: Actor, name: str, zone: Zone, hypervisor: str = Hypervisor.KVM, description: str = "") -> Cluster:
    """Make a cluster in a zone; its hosts share this hypervisor."""
    actor.require("cluster.create", zone)
    cluster = Cluster.objects.create(
        name=name, description=description, zone=zone, hypervisor=hypervisor, project=bootstrap.admin_project()
    )
    audit.record("cluster.create", actor=actor, resource=cluster)
    return cluster


@acting("cluster.update")
def update(cluster: Cluster, *, actor: Actor, **changed: Any) -> Cluster:
    """Change name or description."""
    return changes.update(cluster, "cluster.update", actor=actor, changed=changed)


@acting("cluster.enable")
def enable(cluster: Cluster, *, actor: Actor) -> None:
    """Let new work land in the cluster again."""
    changes.set_availability(cluster, Availability.ENABLED, "cluster.enable", actor=actor)


@acting("cluster.disable")
def disable(cluster: Cluster, *, actor: Actor) -> None:
    """Let no new work land in the cluster; what runs goes on."""
    changes.set_availability(cluster, Availability.DISABLED, "cluster.disable", actor=actor)


@acting("cluster.delete", checks=[nothing_blocks])
def delete(cluster: Cluster, *, actor: Actor) -> None:
    """Delete a cluster without hosts and attachments. Raises Conflict `in_use`, with what uses it."""
    audit.record("cluster.delete", actor=actor, resource=cluster)
    delete_row(cluster)
