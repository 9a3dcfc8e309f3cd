"""Accounts: made with their default project, changed, deleted."""

from django.db import transaction
from django.utils.translation import gettext as _

from cloud.accounts.models import Account, Project
from cloud.accounts.services.bootstrap import ADMIN
from cloud.common import deletion
from cloud.common.actor import Actor
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Problem
from cloud.events.services import audit


def _taken() -> dict[str, Problem]:
    message = _("Another account has this name.")
    return {"account_name_once": Conflict(message, code="name_taken", errors={"name": [message]})}


@transaction.atomic
def create(*, actor: Actor, name: str, description: str = "") -> Account:
    """Make an account with its default project, of the same name. Raises Conflict when the name is taken."""
    actor.require("account.create")
    with told(_taken()):
        account = Account.objects.create(name=name, description=description)
    Project.objects.create(account=account, name=name, is_default=True)
    audit.record("account.create", actor=actor, resource=account)
    return account


@transaction.atomic
def update(account: Account, *, actor: Actor, **changes: str) -> Account:
    """Change name or description. Raises Conflict when the name is taken, or is the platform administrator's."""
    actor.require("account.update")
    if account.name == ADMIN and changes.get("name", ADMIN) != ADMIN:
        raise Conflict(_("The platform administrator's account keeps its name."), code="protected")
    for field, value in changes.items():
        setattr(account, field, value)
    with told(_taken()):
        account.save(update_fields=[*changes, "updated_at"])
    audit.record("account.update", actor=actor, resource=account, detail={"changed": sorted(changes)})
    return account


@transaction.atomic
def delete(account: Account, *, actor: Actor) -> None:
    """Delete an account with its users and projects. Raises Conflict while a project holds resources.

    One's own account and the platform administrator's cannot be deleted.
    """
    actor.require("account.delete")
    if account.name == ADMIN or account.pk == actor.account:
        raise Conflict(_("This account cannot be deleted: you would lock yourself out."), code="protected")
    audit.record("account.delete", actor=actor, resource=account)
    deletion.delete(account)
