"""Accounts: made with their default project, changed, deleted."""

from django.db import transaction
from django.utils.translation import gettext as _

from cloud.accounts.models import Account, Project
from cloud.accounts.services.bootstrap import ADMIN
from cloud.common import deletion
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Problem
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit


def _taken() -> dict[str, Problem]:
    message = _("Another account has this name.")
    return {"account_name_once": Conflict(message, code="name_taken", errors={"name": [message]})}


def _is_no_lock_out(account: Account, actor: Actor) -> Problem | None:
    if account.name != ADMIN and account.pk != actor.account:
        return None
    return Conflict(_("This account cannot be deleted: you would lock yourself out."), code="protected")


@transaction.atomic
def create(*, actor: Actor, name: str, description: str = "") -> Account:
    """Make an account with its default project, of the same name. Raises Conflict when the name is taken."""
    actor.require("account.create")
    with told(_taken()):
        account = Account.objects.create(name=name, description=description)
    Project.objects.create(account=account, name=name, is_default=True)
    audit.record("account.create", actor=actor, resource=account)
    return account


@acting("account.update", is_of_project=False)
def update(account: Account, *, actor: Actor, **changes: str) -> Account:
    """Change name or description. Raises Conflict when the name is taken, or is the platform administrator's."""
    if account.name == ADMIN and changes.get("name", ADMIN) != ADMIN:
        raise Conflict(_("The platform administrator's account keeps its name."), code="protected")
    for field, value in changes.items():
        setattr(account, field, value)
    with told(_taken()):
        account.save(update_fields=[*changes, "updated_at"])
    audit.record("account.update", actor=actor, resource=account, detail={"changed": sorted(changes)})
    return account


@acting("account.delete", checks=[each(_is_no_lock_out), nothing_blocks], is_of_project=False)
def delete(account: Account, *, actor: Actor) -> None:
    """Delete an account with its users and projects. Raises Conflict while a project holds resources.

    One's own account and the platform administrator's cannot be deleted.
    """
    audit.record("account.delete", actor=actor, resource=account)
    deletion.delete(account)
