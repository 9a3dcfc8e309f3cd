"""Small changes that zones, clusters and hosts have in common; called inside their services' transactions."""

from typing import Any, TypeVar

from cloud.common.actor import Actor
from cloud.common.models import Resource
from cloud.events.services import audit

R = TypeVar("R", bound=Resource)


def update(row: R, permission: str, *, actor: Actor, changed: dict[str, Any]) -> R:
    """Write the changed fields of a row."""
    actor.require(permission, row)
    for name, value in changed.items():
        setattr(row, name, value)
    if changed:
        row.save(update_fields=[*changed, "updated_at"])
        audit.record(permission, actor=actor, resource=row, detail=changed)
    return row


def set_availability(row: Any, availability: str, permission: str, *, actor: Actor) -> None:
    """Enable or disable; a row that is so already stays untouched."""
    actor.require(permission, row)
    if row.availability != availability:
        row.availability = availability
        row.save(update_fields=["availability", "updated_at"])
        audit.record(permission, actor=actor, resource=row)
