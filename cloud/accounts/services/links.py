"""One-time sign-in links."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from cloud.accounts.models import SignInLink, User
from cloud.accounts.services import secrets
from cloud.common.actor import Actor
from cloud.common.errors import Conflict
from cloud.events.services import audit

LIVES_FOR = timedelta(minutes=15)


@transaction.atomic
def create(user: User, *, actor: Actor) -> str:
    """Make a link for the user; returns its secret, which is kept nowhere. Raises Conflict for an inactive user.

    Only the platform makes links: a person who reaches the machine could do anything anyway.
    """
    actor.require("user.sign_in_as")
    if not user.is_active:
        raise Conflict(_("%(user)s is not active.") % {"user": user.username}, code="user_inactive")
    SignInLink.objects.filter(expires_at__lt=timezone.now()).delete()
    secret = secrets.make("link")
    SignInLink.objects.create(user=user, hash=secrets.digest(secret), expires_at=timezone.now() + LIVES_FOR)
    audit.record("user.sign_in_link", actor=actor, resource=user)
    return secret


@transaction.atomic
def consume(secret: str) -> User | None:
    """The link's user, once: None when the link is unknown, used, expired, or its user is not active."""
    now = timezone.now()
    fresh = SignInLink.objects.filter(hash=secrets.digest(secret), used_at=None, expires_at__gt=now)
    if not fresh.update(used_at=now):
        return None
    user: User = SignInLink.objects.select_related("user").get(hash=secrets.digest(secret)).user
    return user if user.is_active else None
