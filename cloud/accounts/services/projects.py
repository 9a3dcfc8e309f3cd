"""Projects: made, changed, deleted, and who is a member of them."""

from django.db import transaction
from django.utils.translation import gettext as _

from cloud.accounts.models import Account, Project
from cloud.common import deletion
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Problem
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit


def _taken() -> dict[str, Problem]:
    message = _("Another project of the account has this name.")
    return {"project_name_once": Conflict(message, code="name_taken", errors={"name": [message]})}


def _is_no_default(project: Project, actor: Actor) -> Problem | None:
    if not project.is_default:
        return None
    return Conflict(
        _("%(name)s is the default project of its account.") % {"name": project.name},
        code="protected",
        advice=_("Delete the account instead."),
    )


@transaction.atomic
def create(*, actor: Actor, name: str, account: Account | None = None, description: str = "") -> Project:
    """Make a project in the account, by default the actor's. Raises Conflict when the account has one of this name."""
    actor.require("project.create")
    owner = account or Account.objects.reach(actor.account, actor)
    with told(_taken()):
        project = Project.objects.create(account=owner, name=name, description=description)
    audit.record("project.create", actor=actor, resource=project)
    return project


@acting("project.update", is_of_project=False)
def update(project: Project, *, actor: Actor, **changes: str) -> Project:
    """Change name or description."""
    for field, value in changes.items():
        setattr(project, field, value)
    with told(_taken()):
        project.save(update_fields=[*changes, "updated_at"])
    audit.record("project.update", actor=actor, resource=project, detail={"changed": sorted(changes)})
    return project


@acting("project.delete", checks=[each(_is_no_default), nothing_blocks], is_of_project=False)
def delete(project: Project, *, actor: Actor) -> None:
    """Delete an empty project. Raises Conflict for a default project and for one that holds resources."""
    audit.record("project.delete", actor=actor, resource=project)
    deletion.delete(project)
