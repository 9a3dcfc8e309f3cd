"""API clients that speak for somebody."""

from typing import Any

from rest_framework.test import APIClient

from cloud.accounts.models import Membership, Project, User
from cloud.accounts.services import actors, bootstrap
from cloud.common.actor import Actor
from tests.factories.accounts import member, token_of


class Client(APIClient):
    """Speaks JSON with a user's bearer token. `user`, `project` and `actor` say for whom; None is anonymous."""

    def __init__(self, user: User | None = None, **token: Any) -> None:
        super().__init__(raise_request_exception=False)
        self.user = user
        if user is not None:
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {token_of(user, **token)}")

    def remove(self, path: str) -> Any:
        """Delete as people do: look at what it does, then do it with the token of that."""
        seen = self.delete(f"{path}?dry_run=1")
        if seen.status_code != 200:
            return seen
        return self.delete(path, headers={"X-Preview-Token": seen.json()["token"]})

    @property
    def actor(self) -> Actor:
        assert self.user is not None
        return actors.of(self.user)

    @property
    def project(self) -> Project:
        assert self.user is not None
        membership: Membership = self.user.memberships.select_related("project").order_by("created_at")[0]
        return membership.project


def admin_client() -> Client:
    """The platform administrator."""
    return Client(bootstrap.ensure_admin())


def member_client(role: str = "project_member", project: Project | None = None, **fields: Any) -> Client:
    """A user with this role in the project, by default that of a fresh account."""
    return Client(member(role, project, **fields))
