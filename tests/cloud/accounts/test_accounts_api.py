"""Accounts, projects, users and tokens through the API."""

from tests.base.api import ResourceApiTests
from tests.base.clients import Client
from tests.factories import accounts as make


class TestAccounts(ResourceApiTests):
    prefix = "accounts"
    factory = make.AccountFactory
    has_project = False
    create_body = {"name": "new", "description": "a tenant"}


class TestProjects(ResourceApiTests):
    prefix = "projects"
    factory = make.ProjectFactory
    has_project = False
    filters = {"account": lambda project: project.account_id}
    create_body = {"name": "new"}

    def make(self, client: Client, **fields: object) -> object:
        make.ProjectFactory(account=(account := make.AccountFactory()))
        return make.ProjectFactory(account=account, **fields)


class TestUsers(ResourceApiTests):
    prefix = "users"
    factory = make.UserFactory
    has_project = False
    search = staticmethod(lambda user: user.username)
    filters = {"account": lambda user: user.account_id, "username": lambda user: user.username}
    orderings = ("created_at", "username")
    create_body = {"username": "new", "email": "new@example.org", "role": "project_member"}
    update_body = {"name": "Another", "email": "other@example.org"}


class TestApiTokens(ResourceApiTests):
    prefix = "api-tokens"
    factory = make.ApiTokenFactory
    has_project = False
    filters = {"user": lambda token: token.user_id}
    create_body = {"name": "new", "scopes": ["*.view"]}
    update_body = None
