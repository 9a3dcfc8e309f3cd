"""From a signed-in user, or a token, to the actor that services know."""

import uuid
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from django.utils.translation import gettext as _

from cloud.accounts.models import ApiToken, Membership, Project, User
from cloud.accounts.roles import PROJECT_MEMBER, RANK, ROLES, Role
from cloud.common import permissions
from cloud.common.actor import Actor
from cloud.common.errors import Missing


def of(
    user: User,
    *,
    project: Any = None,
    address: str = "",
    request_id: str = "",
    via: str = "session",
    token: ApiToken | None = None,
) -> Actor:
    """The actor of a user, working in `project` (a Project, its uuid, or None for the usual one).

    An actor has one role at a time: the one held in the project, else the widest one held. It sees the projects where
    that role holds, so that no grant reaches a project it was not given for. A token narrows the actor to its scopes,
    and one bound to a project to what a member of that project may do. Raises Missing when the project is not one the
    user, or the token, may work in.
    """
    held = sorted(
        user.memberships.select_related("project"), key=lambda m: (RANK[m.role], not m.project.is_default, m.created_at)
    )
    bound = token.project_id if token else None
    wanted = _project_uuid(project) or bound
    if bound and wanted != bound:
        raise _no_project()
    chosen, at = _choose(user, held, wanted)
    role = ROLES[chosen.role] if chosen else None
    return Actor(
        name=user.username,
        user=user.pk,
        account=user.account_id,
        project=at,
        projects=frozenset({bound}) if bound else _visible(user, held, role),
        grants=_grants(role, token),
        sees_all=bool(role and role.sees_all) and not bound,
        address=address,
        request_id=request_id,
        via=via,
    )


def _project_uuid(project: Any) -> uuid.UUID | None:
    if project is None or isinstance(project, uuid.UUID):
        return project
    if isinstance(project, Project):
        return project.pk
    try:
        return uuid.UUID(str(project))
    except ValueError:
        raise _no_project() from None


def _no_project() -> Missing:
    return Missing(_("There is no such project."), code="unknown_project")


def _choose(user: User, held: list[Membership], wanted: uuid.UUID | None) -> tuple[Membership | None, uuid.UUID | None]:
    """The membership whose role holds, and the project it is used in."""
    if wanted is None:
        return (held[0], held[0].project_id) if held else (None, None)
    for membership in held:
        if membership.project_id == wanted:
            return membership, wanted
    for membership in held:
        role = ROLES[membership.role]
        reach = Project.objects.filter(pk=wanted)
        if role.sees_account and not role.sees_all:
            reach = reach.filter(account_id=user.account_id)
        if (role.sees_all or role.sees_account) and reach.exists():
            return membership, wanted
    raise _no_project()


def _visible(user: User, held: list[Membership], role: Role | None) -> frozenset[uuid.UUID]:
    if role is None:
        return frozenset()
    if role.sees_account:
        return frozenset(Project.objects.filter(account_id=user.account_id).values_list("pk", flat=True))
    return frozenset(m.project_id for m in held if m.role == role.name)


def _grants(role: Role | None, token: ApiToken | None) -> frozenset[str]:
    if role is None:
        return frozenset()
    grants = role.grants
    if token and token.project_id and role.sees_account:
        grants = _both(grants, ROLES[PROJECT_MEMBER].grants)
    return _both(grants, token.scopes) if token and token.scopes else grants


def _both(grants: Iterable[str], scopes: Iterable[str]) -> frozenset[str]:
    """What two sets of wildcards both grant, by the names of declared permissions: exact where they overlap in part."""
    return frozenset(
        name
        for name in permissions.declared()
        if any(fnmatchcase(name, grant) for grant in grants) and any(fnmatchcase(name, scope) for scope in scopes)
    )
