"""Users: made, changed, deleted; their passwords and roles."""

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils.translation import gettext as _

from cloud.accounts.models import Account, Membership, Project, User
from cloud.accounts.roles import PLATFORM_ADMIN, ROLES
from cloud.accounts.services import ranks
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Invalid, Problem
from cloud.events.services import audit


def _taken() -> dict[str, Problem]:
    message = _("Another user has this name.")
    return {"user_username_once": Conflict(message, code="name_taken", errors={"username": [message]})}


def _locks_out(users: Sequence[User], actor: Actor) -> dict[Any, Problem]:
    """Against taking access away from oneself, or from the last platform administrator."""
    # All administrators are locked in one order, so that two of them cannot remove each other at once.
    admins = Membership.objects.filter(role=PLATFORM_ADMIN, user__is_active=True).order_by("pk")
    if len(users) == 1 and connection.in_atomic_block:
        admins = admins.select_for_update()
    last = {membership.user_id for membership in admins}
    found: dict[Any, Problem] = {}
    for user in users:
        if user.pk == actor.user:
            found[user.pk] = Conflict(
                _("You cannot take your own access away."),
                code="self_lock_out",
                advice=_("Ask another administrator to do it."),
            )
        elif last == {user.pk}:
            found[user.pk] = Conflict(
                _("%(user)s is the last platform administrator.") % {"user": user.username},
                code="last_administrator",
                advice=_("Make another user platform administrator first."),
            )
    return found


@transaction.atomic
def create(
    *,
    actor: Actor,
    username: str,
    account: Account | None = None,
    name: str = "",
    email: str = "",
    password: str = "",
    role: str = "",
    project: Project | None = None,
) -> User:
    """Make a user in the account, by default the actor's, with `role` in `project`, by default the account's own one.

    Without a password the user signs in by link or token. Raises Conflict when the name is taken, Invalid for a weak
    password, NotPermitted for a role wider than the actor's rights.
    """
    actor.require("user.create")
    owner = account or Account.objects.reach(actor.account, actor)
    user = User(account=owner, username=username, name=name, email=email)
    _set_password(user, password)
    with told(_taken()):
        user.save()
    if role:
        _grant(user, project or owner.projects.get(is_default=True), role, actor)
    audit.record("user.create", actor=actor, resource=user, detail={"role": role})
    return user


@acting("user.update", checks=[ranks.beyond_reach], is_of_project=False)
def update(user: User, *, actor: Actor, **changes: Any) -> User:
    """Change name, email, password or activity. Nobody deactivates themselves or the last platform administrator."""
    if changes.get("is_active") is False:
        _refuse_lock_out(user, actor)
    if "password" in changes:
        _set_password(user, changes["password"])
    for field in ("name", "email", "is_active"):
        if field in changes:
            setattr(user, field, changes[field])
    user.save()
    audit.record("user.update", actor=actor, resource=user, detail={"changed": sorted(changes)})
    return user


@acting("user.delete", checks=[ranks.beyond_reach, _locks_out], is_of_project=False)
def delete(user: User, *, actor: Actor) -> None:
    """Delete a user with tokens and roles. Nobody deletes themselves or the last platform administrator."""
    audit.record("user.delete", actor=actor, resource=user)
    user.delete()


@acting("user.update", checks=[ranks.beyond_reach], is_of_project=False)
def grant(user: User, *, actor: Actor, project: Project, role: str) -> Membership:
    """Give the user a role in a project, instead of the one held there. Raises NotPermitted, Conflict (lock-out)."""
    membership = _grant(user, project, role, actor)
    audit.record("user.update", actor=actor, resource=user, detail={"project": str(project.pk), "role": role})
    return membership


@acting("user.update", checks=[ranks.beyond_reach], is_of_project=False)
def revoke(user: User, *, actor: Actor, project: Project) -> None:
    """Take the user's role in a project away; absent is fine."""
    for membership in user.memberships.filter(project=project):
        if membership.role == PLATFORM_ADMIN:
            _refuse_lock_out(user, actor)
        membership.delete()
        audit.record("user.update", actor=actor, resource=user, detail={"project": str(project.pk), "role": ""})


def _grant(user: User, project: Project, role: str, actor: Actor) -> Membership:
    if role not in ROLES:
        raise Invalid(_("There is no role %(role)s.") % {"role": role}, errors={"role": [_("Unknown role.")]})
    ranks.require_role(actor, ROLES[role])
    if project.account_id != user.account_id and (ROLES[role].sees_account or not actor.sees_all):
        raise Invalid(
            _("%(user)s is not a user of this project's account.") % {"user": user.username},
            code="foreign_project",
            errors={"project": [_("Give a project of the user's own account.")]},
        )
    held = user.memberships.filter(project=project).first()
    if held is not None and held.role == PLATFORM_ADMIN != role:
        _refuse_lock_out(user, actor)
    membership, _made = Membership.objects.update_or_create(user=user, project=project, defaults={"role": role})
    return membership


def _set_password(user: User, password: str) -> None:
    if not password:
        user.set_unusable_password()
        return
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(
            _("The password is too weak."), code="weak_password", errors={"password": error.messages}
        ) from None
    user.set_password(password)


def _refuse_lock_out(user: User, actor: Actor) -> None:
    """Raise Conflict when the act would lock the actor out, or leave the platform without an administrator."""
    for problem in _locks_out([user], actor).values():
        raise problem
