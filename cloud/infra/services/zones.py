"""What one may do with zones."""

from typing import Any

from django.db import transaction

from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.deletion import delete as delete_row
from cloud.common.models import Availability
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit
from cloud.infra.models import Zone
from cloud.infra.services import changes


@transaction.atomic
def create(*, actor: Actor, name: str, description: str = "") -> Zone:
    """Make a zone; it belongs to the platform administrator's project."""
    actor.require("zone.create")
    zone = Zone.objects.create(name=name, description=description, project=bootstrap.admin_project())
    audit.record("zone.create", actor=actor, resource=zone)
    return zone


@acting("zone.update")
def update(zone: Zone, *, actor: Actor, **changed: Any) -> Zone:
    """Change name or description."""
    return changes.update(zone, "zone.update", actor=actor, changed=changed)


@acting("zone.enable")
def enable(zone: Zone, *, actor: Actor) -> None:
    """Let new work land in the zone again."""
    changes.set_availability(zone, Availability.ENABLED, "zone.enable", actor=actor)


@acting("zone.disable")
def disable(zone: Zone, *, actor: Actor) -> None:
    """Let no new work land in the zone; what runs goes on."""
    changes.set_availability(zone, Availability.DISABLED, "zone.disable", actor=actor)


@acting("zone.delete", checks=[nothing_blocks])
def delete(zone: Zone, *, actor: Actor) -> None:
    """Delete an empty zone. Raises Conflict `in_use`, with what is in it."""
    audit.record("zone.delete", actor=actor, resource=zone)
    delete_row(zone)
