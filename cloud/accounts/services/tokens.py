"""API tokens: made, recognised, taken back."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from cloud.accounts.models import ApiToken, Project, User
from cloud.accounts.services import ranks, secrets
from cloud.common import permissions
from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.errors import Invalid, Problem
from cloud.events.services import audit

PREFIX = "mica"
_HINT = 12
_NOTED_EVERY = timedelta(minutes=1)


def _of_mightier_users(held: Sequence[ApiToken], actor: Actor) -> dict[Any, Problem]:
    """Against taking back tokens of users whose rights are wider than the actor's."""
    others = [token for token in held if token.user_id != actor.user]
    users = list(User.objects.filter(pk__in={token.user_id for token in others}))
    beyond = ranks.beyond_reach(users, actor) if users else {}
    return {token.pk: beyond[token.user_id] for token in others if token.user_id in beyond}


@transaction.atomic
def create(
    *,
    actor: Actor,
    name: str,
    user: User | None = None,
    scopes: Sequence[str] = (),
    project: Project | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiToken, str]:
    """Make a token for the actor, or for another user in the actor's reach; returns it with its secret.

    `scopes` are permission names with wildcards; none means all that the user may do. A token made with a token is
    never wider than that one. Raises Invalid for a scope that names no permission or an expiry in the past,
    NotPermitted for a user with wider rights.
    """
    actor.require("api_token.create")
    owner = user or User.objects.reach(actor.user, actor)
    if owner.pk != actor.user:
        actor.require("user.update")
        ranks.require_reach(actor, owner)
    if actor.via == "token":
        scopes = ranks.narrowed(actor, scopes)
    _check(scopes, expires_at)
    secret = secrets.make(PREFIX)
    token = ApiToken.objects.create(
        user=owner,
        project=project,
        name=name,
        hash=secrets.digest(secret),
        hint=secret[:_HINT],
        scopes=list(scopes),
        expires_at=expires_at,
    )
    audit.record(
        "api_token.create", actor=actor, resource=token, detail={"user": owner.username, "scopes": list(scopes)}
    )
    return token, secret


@acting("api_token.delete", checks=[_of_mightier_users], is_of_project=False)
def delete(token: ApiToken, *, actor: Actor) -> None:
    """Take a token back: it is refused from now on."""
    audit.record("api_token.delete", actor=actor, resource=token, detail={"user": token.user.username})
    token.delete()


def recognise(secret: str) -> ApiToken | None:
    """The token with this secret, unless it is expired or its user inactive. Notes its use, at most once a minute."""
    if not secret.startswith(f"{PREFIX}_"):
        return None
    token = ApiToken.objects.select_related("user").filter(hash=secrets.digest(secret)).first()
    if token is None or token.is_expired or not token.user.is_active:
        return None
    now = timezone.now()
    before = now - _NOTED_EVERY
    if token.last_used_at is None or token.last_used_at < before:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=before)
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)
    return token


def _check(scopes: Sequence[str], expires_at: datetime | None) -> None:
    errors = {}
    unknown = [scope for scope in scopes if not any(fnmatchcase(name, scope) for name in permissions.declared())]
    if unknown:
        errors["scopes"] = [_("No permission is named %(names)s.") % {"names": ", ".join(unknown)}]
    if expires_at is not None and expires_at <= timezone.now():
        errors["expires_at"] = [_("Give a time in the future.")]
    if errors:
        raise Invalid(_("The token cannot be created this way."), errors=errors)
