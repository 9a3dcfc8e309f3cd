"""What accounts answer to lower parts: who stands on an account, a project, a user."""

from django.apps import apps

from cloud.accounts.models import Account, ApiToken, Membership, Project, User
from cloud.common import relations
from cloud.common.models import Resource
from cloud.common.relations import BLOCKS, LOST, declare

declare(Account, Project, by="account", effect=LOST)
declare(Account, User, by="account", effect=LOST)
declare(Project, ApiToken, by="project", effect=LOST)
declare(Project, Membership, by="project", effect=LOST)
declare(User, ApiToken, by="user", effect=LOST)
declare(User, Membership, by="user", effect=LOST)


@relations.declare_late
def resources() -> None:
    """Whatever is of a project keeps the project, and its account, from going."""
    for model in apps.get_models():
        if issubclass(model, Resource):
            declare(Project, model, by="project", effect=BLOCKS)
            declare(Account, model, by="project__account", effect=BLOCKS)
