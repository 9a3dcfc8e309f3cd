"""Nobody gives away, or takes over, rights that they do not have."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from django.utils.translation import gettext as _

from cloud.accounts.models import Membership, User
from cloud.accounts.roles import ROLES, Role
from cloud.common import permissions
from cloud.common.actor import Actor
from cloud.common.errors import NotPermitted, Problem


def covers(actor: Actor, role: Role) -> bool:
    """Whether the actor may do everything that the role grants, and sees as far."""
    return (actor.sees_all or not role.sees_all) and all(actor.may(grant) for grant in role.grants)


def require_role(actor: Actor, role: Role) -> None:
    """Raise NotPermitted (`role_too_wide`) unless the actor may give this role."""
    if not covers(actor, role):
        raise NotPermitted(
            _("The role %(role)s has rights that %(name)s does not have.") % {"role": role.label, "name": actor.name},
            code="role_too_wide",
        )


def require_reach(actor: Actor, user: User) -> None:
    """Raise NotPermitted (`user_too_mighty`) when the user has a role that the actor could not give.

    Else changing a user's password or making a token for one would be a way up.
    """
    for problem in beyond_reach([user], actor).values():
        raise problem


def beyond_reach(users: Sequence[User], actor: Actor) -> dict[Any, Problem]:
    """What keeps the actor from acting on these users, by key: a check of acts. One query."""
    held = Membership.objects.filter(user__in=[user.pk for user in users]).values_list("user", "role").distinct()
    mighty = {user for user, role in held if not covers(actor, ROLES[role])}
    return {
        user.pk: NotPermitted(
            _("%(user)s has wider rights than %(name)s.") % {"user": user.username, "name": actor.name},
            code="user_too_mighty",
        )
        for user in users
        if user.pk in mighty
    }


def narrowed(actor: Actor, scopes: Sequence[str]) -> list[str]:
    """The scopes cut to what the actor may do itself: as they are where it covers them, else by name."""
    wanted = list(scopes) or ["*"]
    if all(actor.may(scope) for scope in wanted):
        return list(scopes)
    return [
        name for name in permissions.declared() if actor.may(name) and any(fnmatchcase(name, scope) for scope in wanted)
    ]
