"""Who there is: accounts, their projects, users and what these may do where; tokens and sign-in links."""

import uuid
from typing import Any, ClassVar, Self, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from cloud.accounts import roles
from cloud.common.actor import Actor
from cloud.common.errors import Missing

USERNAME = RegexValidator(
    r"\A[a-z0-9][a-z0-9._-]{0,62}\Z", _("Use a-z, 0-9 and . _ - and begin with a letter or digit.")
)


Row = TypeVar("Row", bound=models.Model)


class _Reachable(models.QuerySet[Row]):
    def visible_to(self, actor: Actor) -> Self:
        """Only what the actor may see."""
        raise NotImplementedError

    def reach(self, uuid: Any, actor: Actor) -> Row:
        """The one visible row with this uuid. Raises Missing, whether it does not exist or is not the caller's."""
        found = self.visible_to(actor).filter(pk=uuid).first()
        if found is None:
            raise Missing(_("There is no such resource."), resource=str(uuid))
        return found


class AccountQuerySet(_Reachable["Account"]):
    def visible_to(self, actor: Actor) -> Self:
        return self if actor.sees_all else self.filter(pk__in=[actor.account])


class Account(models.Model):
    """A tenant: owns projects and users. Has exactly one default project."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = AccountQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]
        constraints = [models.UniqueConstraint(fields=["name"], name="account_name_once")]

    def __str__(self) -> str:
        return self.name


class ProjectQuerySet(_Reachable["Project"]):
    def visible_to(self, actor: Actor) -> Self:
        return self if actor.sees_all else self.filter(pk__in=actor.projects)


class Project(models.Model):
    """What every resource belongs to exactly one of."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="projects")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")
    is_default = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]
        constraints = [
            models.UniqueConstraint(fields=["account", "name"], name="project_name_once"),
            models.UniqueConstraint(fields=["account"], condition=Q(is_default=True), name="project_default_once"),
        ]

    def __str__(self) -> str:
        return self.name


class UserQuerySet(_Reachable["User"]):
    def visible_to(self, actor: Actor) -> Self:
        return self if actor.sees_all else self.filter(account_id=actor.account)


class UserManager(BaseUserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    def get_by_natural_key(self, username: str | None) -> "User":
        found: User = self.get(username=username)
        return found


class User(AbstractBaseUser):
    """A person or a program that signs in. Passwords are Argon2; a user without one signs in by link or token."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="users")
    username = models.CharField(max_length=63, validators=[USERNAME])
    name = models.CharField(max_length=255, blank=True, default="")
    email = models.EmailField(blank=True, default="")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        ordering = ["created_at", "uuid"]
        constraints = [models.UniqueConstraint(fields=["username"], name="user_username_once")]

    def __str__(self) -> str:
        return self.username


class Membership(models.Model):
    """The role of a user in a project."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=32, choices=roles.CHOICES)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [models.UniqueConstraint(fields=["user", "project"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiTokenQuerySet(_Reachable["ApiToken"]):
    def visible_to(self, actor: Actor) -> Self:
        return self if actor.sees_all else self.filter(user_id=actor.user)


class ApiToken(models.Model):
    """A bearer token: shown once when made, stored as SHA-256.

    `scopes` are permission names with wildcards that narrow what the user may do; none means all of it. `project`, when
    set, is the only project that the token works in. `hint` is the token's beginning, by which people tell them apart.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    name = models.CharField(max_length=255)
    hash = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)
    scopes = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    kind_word = "api_token"
    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "uuid"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class QuotaUsage(models.Model):
    """A limit on what an account, or one project of it, may have of something, and what it has.

    A row is a limit: what has none is not kept here but counted when somebody asks (`services.quotas`). `used` may be
    above `limit`, which can be lowered at any time; then nothing more is given.
    """

    account = models.ForeignKey(Account, null=True, on_delete=models.CASCADE, related_name="quotas")
    project = models.ForeignKey(Project, null=True, on_delete=models.CASCADE, related_name="quotas")
    name = models.CharField(max_length=64)
    used = models.BigIntegerField()
    limit = models.BigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["account", "name"], name="quota_account_once"),
            models.UniqueConstraint(fields=["project", "name"], name="quota_project_once"),
            models.CheckConstraint(
                condition=Q(account__isnull=True, project__isnull=False)
                | Q(account__isnull=False, project__isnull=True),
                name="quota_of_one_owner",
            ),
            models.CheckConstraint(condition=Q(used__gte=0, limit__gte=0), name="quota_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.used}/{self.limit}"


class SignInLink(models.Model):
    """A link that signs its user in once, within 15 minutes; only its SHA-256 is stored."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_in_links")
    hash = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.uuid)
