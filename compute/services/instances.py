"""Acts on instances. The only place that changes their state on a user's behalf."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from cloud.accounts.services import quotas
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.config.services import value
from cloud.events.services import audit
from cloud.infra.models import Host
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from compute.models import Instance, InstanceState
from compute.services import scheduler
from compute.services.creation import NicWish, Wish, context_of, create
from compute.services.scheduler import Needs
from compute.workflows import bookings
from compute.workflows.lifecycle import RebootInstance, StartInstance, StopInstance
from compute.workflows.recycle import DestroyInstance, ExpungeInstance, RecoverInstance
from network.models import Nic
from network.services import nics
from storage.models import Volume, VolumeState

__all__ = [
    "NicWish",
    "Wish",
    "create",
    "destroy",
    "expunge",
    "locked",
    "reboot",
    "recover",
    "start",
    "stop",
    "update",
]


def _place_of(instance: Instance) -> Host | None:
    """The host an instance's volumes bind it to, else where it is or was."""
    bound = Volume.objects.filter(instance_uuid=instance.pk, host__isnull=False).select_related("host").first()
    return bound.host if bound else (instance.host or instance.last_host)


def _volumes_of(instance: Instance) -> list[str]:
    return [str(pk) for pk in Volume.objects.filter(instance_uuid=instance.pk).values_list("pk", flat=True)]


def locked(instance: Instance) -> Instance:
    """The row as it is now, held until the transaction ends: two acts at once see each other."""
    return (
        Instance.objects.select_for_update(of=("self",))
        .select_related("cluster__zone", "host", "last_host", "project")
        .get(pk=instance.pk)
    )


def _has_its_volumes(instances: Sequence[Instance], actor: Actor) -> dict[Any, Problem]:
    """Against recovering instances whose volumes are being deleted."""
    keys = [instance.pk for instance in instances]
    gone = Volume.objects.filter(instance_uuid__in=keys, state=VolumeState.DELETED)
    too_late = Conflict(_("Its volumes are being deleted; it cannot be recovered any more."), code="too_late")
    return dict.fromkeys(gone.values_list("instance_uuid", flat=True), too_late)


def _is_not_in_bin(instance: Instance, actor: Actor) -> Problem | None:
    if instance.state != InstanceState.DESTROYED:
        return None
    return Conflict(_("The instance is in the recycle bin."), code="wrong_state", advice=_("Recover it first."))


STARTABLE = (InstanceState.STOPPED, InstanceState.CREATED, InstanceState.CRASHED)
STOPPABLE = (InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.CRASHED)
NOT_IN_BIN = tuple(state for state in InstanceState if state != InstanceState.DESTROYED)


@acting("instance.start", states=STARTABLE, lock=locked)
def start(instance: Instance, *, actor: Actor) -> Job:
    """Start a stopped instance on a host with room for it.

    Raises Conflict if it is not stopped or another job holds it, NoHostFits (with the reason per host), QuotaExceeded.
    """
    freed = bookings.free_room(instance.pk)
    plugged = list(Nic.objects.filter(instance_uuid=instance.pk).select_related("l3").order_by("device_index"))
    host = scheduler.reserve(
        Needs(
            cpu=instance.cpu,
            memory_bytes=instance.memory_bytes,
            l3_networks=tuple(nic.l3 for nic in plugged),
            cluster=instance.cluster,
            host=_place_of(instance),
        )
    )
    bookings.book(instance, host)
    wants = nics.place(plugged, host)
    job = jobs.open(StartInstance, resource=instance, actor=actor, context=context_of(host, wants=wants))
    quotas.give_all(freed)
    quotas.take(instance.project, instance.booked)
    return job


@acting("instance.stop", states=STOPPABLE, lock=locked)
def stop(instance: Instance, *, actor: Actor, is_forced: bool = False) -> Job:
    """Shut the guest down, by force after the grace time; `is_forced` switches it off at once."""
    context = context_of(instance.host, is_forced=is_forced, grace_s=value("instance.stop_grace_s"))
    return jobs.open(StopInstance, resource=instance, actor=actor, context=context)


@acting("instance.reboot", states=[InstanceState.RUNNING], lock=locked)
def reboot(instance: Instance, *, actor: Actor, is_forced: bool = False) -> Job:
    """Restart the guest; `is_forced` resets it at once."""
    context = context_of(instance.host, is_forced=is_forced, grace_s=value("instance.stop_grace_s"))
    return jobs.open(RebootInstance, resource=instance, actor=actor, context=context)


@acting("instance.destroy", states=NOT_IN_BIN, lock=locked)
def destroy(instance: Instance, *, actor: Actor) -> Job:
    """Switch the instance off and put it into the recycle bin, with its volumes and addresses."""
    return jobs.open(DestroyInstance, resource=instance, actor=actor, context=context_of(_place_of(instance)))


@acting("instance.recover", states=[InstanceState.DESTROYED], checks=[_has_its_volumes], lock=locked)
def recover(instance: Instance, *, actor: Actor) -> Job:
    """Take the instance out of the recycle bin, stopped."""
    return jobs.open(RecoverInstance, resource=instance, actor=actor, context=context_of(_place_of(instance)))


@acting("instance.expunge", states=[InstanceState.DESTROYED], lock=locked)
def expunge(instance: Instance, *, actor: Actor) -> Job:
    """Delete a destroyed instance for good: its files first, its addresses and its row last."""
    context = context_of(_place_of(instance), volumes=_volumes_of(instance))
    return jobs.open(ExpungeInstance, resource=instance, actor=actor, context=context)


@acting("instance.update", checks=[each(_is_not_in_bin)], lock=locked)
def update(instance: Instance, *, actor: Actor, **changes: Any) -> Instance:
    """Change the name or the description."""
    for field in ("name", "description"):
        if field in changes:
            setattr(instance, field, changes[field])
    instance.save(update_fields=["name", "description", "updated_at"])
    audit.record("instance.update", actor=actor, resource=instance, detail=changes)
    return instance
