"""Primary storages: added, attached to clusters, taken out of use."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services.bootstrap import admin_project
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Invalid
from cloud.common.models import Availability
from cloud.common.relations import nothing_blocks
from cloud.infra.models import Cluster, Zone
from cloud.infra.services import changes
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from storage.models import PrimaryStorage, StorageKind, StorageState, attachments
from storage.services import paths
from storage.workflows.add_primary_storage import AddPrimaryStorage, AttachPrimaryStorage
from storage.workflows.detach_primary_storage import DeletePrimaryStorage, DetachPrimaryStorage


def _locked(storage: PrimaryStorage) -> PrimaryStorage:
    # Not the key: a volume that is just being written down holds what we wait for, and refers to this row.
    rows = PrimaryStorage.objects.select_for_update(of=("self",), no_key=True).select_related("zone")
    found: PrimaryStorage = rows.get(pk=storage.pk)
    return found


@transaction.atomic
def add(
    *,
    actor: Actor,
    name: str,
    zone: Zone,
    path: str,
    description: str = "",
    kind: str = StorageKind.LOCAL,
    clusters: Sequence[Cluster] = (),
) -> tuple[list[PrimaryStorage], Job]:
    """Add a primary storage: a directory, for nothing else, on each host of the clusters it is attached to.

    Raises Invalid for a path that belongs to the system or a cluster of another zone, Conflict when the name or the
    path is taken.
    """
    actor.require("primary_storage.add")
    path = paths.checked(path)
    _expect_zone(zone, clusters)
    _expect_free(path, clusters)
    with _name_told(name):
        storage = PrimaryStorage.objects.create(
            uuid=uuid.uuid4(),
            name=name,
            description=description,
            project=admin_project(),
            kind=kind,
            zone=zone,
            path=path,
            state=StorageState.CREATING,
        )
    attachments.add(storage, clusters)
    context = {"clusters": [str(cluster.pk) for cluster in clusters]}
    return [storage], jobs.open(AddPrimaryStorage, resource=storage, actor=actor, context=context)


@acting("primary_storage.attach", states=[StorageState.READY], lock=_locked)
def attach(storage: PrimaryStorage, *, actor: Actor, cluster: Cluster) -> Job:
    """Let the hosts of a cluster use the storage. Raises Conflict when they do already or the path is in use there."""
    _expect_zone(storage.zone, [cluster])
    if storage.attachments.filter(cluster=cluster).exists():
        raise Conflict(
            _("%(storage)s is attached to %(cluster)s.") % {"storage": storage, "cluster": cluster},
            code="already_attached",
        )
    _expect_free(storage.path, [cluster])
    attachments.add(storage, [cluster])
    context = {"clusters": [str(cluster.pk)]}
    return jobs.open(AttachPrimaryStorage, resource=storage, actor=actor, context=context)


@acting("primary_storage.detach", states=[StorageState.READY], lock=_locked)
def detach(storage: PrimaryStorage, *, actor: Actor, cluster: Cluster) -> Job:
    """Take the storage from a cluster. Raises Conflict while volumes of its hosts are on it."""
    if not storage.attachments.filter(cluster=cluster).exists():
        raise Conflict(
            _("%(storage)s is not attached to %(cluster)s.") % {"storage": storage, "cluster": cluster},
            code="not_attached",
        )
    context = _emptied(storage, [str(cluster.pk)])
    return jobs.open(DetachPrimaryStorage, resource=storage, actor=actor, context=context)


@acting("primary_storage.update")
def update(storage: PrimaryStorage, *, actor: Actor, **changed: Any) -> PrimaryStorage:
    """Change the name or the description. Raises Conflict when the name is taken in the zone."""
    with _name_told(changed.get("name", "")):
        return changes.update(storage, "primary_storage.update", actor=actor, changed=changed)


@acting("primary_storage.enable")
def enable(storage: PrimaryStorage, *, actor: Actor) -> None:
    """Let new volumes land on the storage."""
    changes.set_availability(storage, Availability.ENABLED, "primary_storage.enable", actor=actor)


@acting("primary_storage.disable")
def disable(storage: PrimaryStorage, *, actor: Actor) -> None:
    """Let no new volume land on the storage; those on it go on."""
    changes.set_availability(storage, Availability.DISABLED, "primary_storage.disable", actor=actor)


@acting("primary_storage.delete", states=[StorageState.READY], checks=[nothing_blocks], lock=_locked)
def delete(storage: PrimaryStorage, *, actor: Actor) -> Job:
    """Take the storage from all clusters and forget it. Raises Conflict while volumes are on it."""
    clusters = [str(key) for key in storage.attachments.values_list("cluster", flat=True)]
    context = _emptied(storage, clusters)
    return jobs.open(DeletePrimaryStorage, resource=storage, actor=actor, context=context)


def _emptied(storage: PrimaryStorage, clusters: list[str]) -> dict[str, Any]:
    """Close the storage for new volumes and have cached images removed; the job's context."""
    if count := attachments.close(storage, clusters):
        raise attachments.in_use(storage, count)
    attachments.evict(storage, clusters)
    return {"clusters": clusters}


def _name_told(name: str) -> AbstractContextManager[None]:
    taken = Conflict(
        _("The zone has a primary storage named %(name)s.") % {"name": name},
        code="name_taken",
        errors={"name": [_("Choose another name.")]},
    )
    return told({"primary_storage_name_once": taken})


def _expect_zone(zone: Zone, clusters: Sequence[Cluster]) -> None:
    if strangers := [str(cluster) for cluster in clusters if cluster.zone_id != zone.pk]:
        raise Invalid(
            _("These clusters are not in the zone %(zone)s: %(clusters)s.")
            % {"zone": zone, "clusters": ", ".join(strangers)},
            code="other_zone",
            errors={"clusters": [_("Give clusters of the storage's zone.")]},
        )


def _expect_free(path: str, clusters: Sequence[Cluster]) -> None:
    """Raise Conflict when another storage of these clusters is at, in or around the path."""
    # The clusters' rows are held, so that two callers do not both find the path free.
    list(Cluster.objects.select_for_update().filter(pk__in=[c.pk for c in clusters]).order_by("pk"))
    others = PrimaryStorage.objects.filter(clusters__in=list(clusters)).distinct()
    if taken := next((other for other in others if paths.overlap(path, other.path)), None):
        raise Conflict(
            _("%(storage)s is at %(path)s on the same hosts.") % {"storage": taken, "path": taken.path},
            code="path_taken",
            errors={"path": [_("Choose another directory.")]},
        )
