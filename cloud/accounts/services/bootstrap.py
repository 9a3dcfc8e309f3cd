"""The first run: the administrator's account, project and user."""

from django.db import transaction

from cloud.accounts.models import Account, Membership, Project, User
from cloud.accounts.roles import PLATFORM_ADMIN

ADMIN = "admin"


@transaction.atomic
def ensure_admin() -> User:
    """Make the account, default project and user `admin` where they are missing; returns the user.

    Safe to repeat and to run twice at once. What an administrator changed since (password, role, activity) stays.
    """
    project = admin_project()
    user: User
    user, is_new = User.objects.get_or_create(
        username=ADMIN, defaults={"account": project.account, "name": "Administrator", "password": "!"}
    )
    if is_new:
        user.set_unusable_password()
        user.save(update_fields=["password"])
        Membership.objects.create(user=user, project=project, role=PLATFORM_ADMIN)
    return user


@transaction.atomic
def admin_project() -> Project:
    """The platform administrator's default project, which infrastructure belongs to; made when it is missing."""
    found = Project.objects.select_related("account").filter(account__name=ADMIN, is_default=True).first()
    if found is not None:
        return found
    account, _made = Account.objects.get_or_create(name=ADMIN)
    project, _made = Project.objects.select_related("account").get_or_create(
        account=account, is_default=True, defaults={"name": ADMIN}
    )
    return project
