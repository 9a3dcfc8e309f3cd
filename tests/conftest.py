"""What every test may ask for."""

from collections.abc import Iterator

import pytest

from cloud.accounts.models import Project, User
from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor, platform
from cloud.config import services as config
from tests.base.clients import Client, admin_client, member_client


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """Values of settings are remembered by the process: not from one test to the next."""
    config.forget()
    yield
    config.forget()


@pytest.fixture
def admin_user(db: None) -> User:
    return bootstrap.ensure_admin()


@pytest.fixture
def admin_project(db: None) -> Project:
    """Where infrastructure belongs."""
    return bootstrap.admin_project()


@pytest.fixture
def admin(db: None) -> Client:
    """An API client of the platform administrator."""
    return admin_client()


@pytest.fixture
def tenant(db: None) -> Client:
    """An API client of a project member of some account."""
    return member_client()


@pytest.fixture
def other_tenant(db: None) -> Client:
    """An API client of a project member of another account."""
    return member_client()


@pytest.fixture
def anonymous() -> Client:
    """An API client of nobody."""
    return Client()


@pytest.fixture
def actor() -> Actor:
    """The platform itself, as who acts."""
    return platform("test")
