"""Accounts, projects, users and tokens for tests."""

from typing import Any

import factory

from cloud.accounts.models import Account, ApiToken, Membership, Project, User
from cloud.accounts.services import secrets


class AccountFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Account

    name = factory.Sequence(lambda n: f"account-{n}")


class ProjectFactory(factory.django.DjangoModelFactory):
    """A project: the default one of its account when that has none yet."""

    class Meta:
        model = Project

    account = factory.SubFactory(AccountFactory)
    name = factory.Sequence(lambda n: f"project-{n}")
    is_default = factory.LazyAttribute(lambda made: not made.account.projects.filter(is_default=True).exists())


class UserFactory(factory.django.DjangoModelFactory):
    """A user of a fresh account, without password and role."""

    class Meta:
        model = User

    account = factory.LazyFunction(lambda: ProjectFactory().account)
    username = factory.Sequence(lambda n: f"user-{n}")
    password = "!"


def member(role: str = "project_member", project: Project | None = None, **fields: Any) -> User:
    """A user with a role in a project: by default the default one of a fresh account."""
    place = project or ProjectFactory()
    user: User = UserFactory(account=place.account, **fields)
    Membership.objects.create(user=user, project=place, role=role)
    return user


def token_of(user: User, **fields: Any) -> str:
    """The secret of a fresh token of the user."""
    secret = secrets.make("mica")
    ApiToken.objects.create(user=user, hash=secrets.digest(secret), hint=secret[:12], **{"name": "test", **fields})
    return secret


class ApiTokenFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ApiToken

    user = factory.SubFactory(UserFactory)
    name = factory.Sequence(lambda n: f"token-{n}")
    hash = factory.LazyFunction(lambda: secrets.digest(secrets.make("mica")))
    hint = "mica_abcdefg"
