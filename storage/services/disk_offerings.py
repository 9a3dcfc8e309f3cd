"""Disk offerings: sizes of volumes to choose from."""

from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services.bootstrap import admin_project
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.errors import Invalid
from cloud.common.models import Availability
from cloud.events.services import audit
from cloud.infra.services import changes
from storage.models import DiskOffering
from storage.models.volume import LIMITS


@transaction.atomic
def create(*, actor: Actor, name: str, size_bytes: int, description: str = "", **limits: int | None) -> DiskOffering:
    """Make a disk offering; `limits` are `read_iops`, `write_iops`, `read_bytes_per_s`, `write_bytes_per_s`."""
    actor.require("disk_offering.create")
    if size_bytes <= 0:
        raise Invalid(_("A volume has at least one byte."), errors={"size_bytes": [_("Give a number greater than 0.")]})
    offering = DiskOffering.objects.create(
        name=name,
        description=description,
        size_bytes=size_bytes,
        project=admin_project(),
        **{limit: limits.get(limit) for limit in LIMITS},
    )
    audit.record("disk_offering.create", actor=actor, resource=offering)
    return offering


@acting("disk_offering.update")
def update(offering: DiskOffering, *, actor: Actor, **changed: Any) -> DiskOffering:
    """Change the name or the description; the size stays, as volumes were made by it."""
    return changes.update(offering, "disk_offering.update", actor=actor, changed=changed)


@acting("disk_offering.enable")
def enable(offering: DiskOffering, *, actor: Actor) -> None:
    """Let new volumes be made by the offering."""
    changes.set_availability(offering, Availability.ENABLED, "disk_offering.enable", actor=actor)


@acting("disk_offering.disable")
def disable(offering: DiskOffering, *, actor: Actor) -> None:
    """Let no new volume be made by the offering."""
    changes.set_availability(offering, Availability.DISABLED, "disk_offering.disable", actor=actor)


@acting("disk_offering.delete")
def delete(offering: DiskOffering, *, actor: Actor) -> None:
    """Delete the offering; volumes made by it stay."""
    audit.record("disk_offering.delete", actor=actor, resource=offering)
    offering.delete()
