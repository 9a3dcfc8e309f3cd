"""Acts on instance offerings."""

from typing import Any

from django.db import transaction

from cloud.accounts.services.bootstrap import admin_project
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.models import Availability
from cloud.events.services import audit
from cloud.infra.services.changes import set_availability
from compute.models import InstanceOffering


@transaction.atomic
def create(*, actor: Actor, name: str, cpu: int, memory_bytes: int, description: str = "") -> InstanceOffering:
    """Make an offering that instances can be created with."""
    actor.require("instance_offering.create")
    offering = InstanceOffering.objects.create(
        name=name, description=description, cpu=cpu, memory_bytes=memory_bytes, project=admin_project()
    )
    audit.record("instance_offering.create", actor=actor, resource=offering)
    return offering


@acting("instance_offering.update")
def update(offering: InstanceOffering, *, actor: Actor, **changes: Any) -> InstanceOffering:
    """Change the name or the description; size stays, for instances were made with it."""
    for field, value in changes.items():
        setattr(offering, field, value)
    offering.save(update_fields=[*changes, "updated_at"])
    audit.record("instance_offering.update", actor=actor, resource=offering, detail=changes)
    return offering


@acting("instance_offering.enable")
def enable(offering: InstanceOffering, *, actor: Actor) -> None:
    """Let new instances be made by the offering."""
    set_availability(offering, Availability.ENABLED, "instance_offering.enable", actor=actor)


@acting("instance_offering.disable")
def disable(offering: InstanceOffering, *, actor: Actor) -> None:
    """Let no new instance be made by the offering; those there are go on."""
    set_availability(offering, Availability.DISABLED, "instance_offering.disable", actor=actor)


@acting("instance_offering.delete")
def delete(offering: InstanceOffering, *, actor: Actor) -> None:
    """Delete an offering; instances made with it keep their CPU and memory."""
    audit.record("instance_offering.delete", actor=actor, resource=offering)
    offering.delete()
