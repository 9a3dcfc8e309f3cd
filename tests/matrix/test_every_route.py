"""Every address of the API for every kind of caller: who is not signed in gets 401, what is not the caller's is 404,
what is but may not be done is 403, and these come before anything is said about the input."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from django.db import transaction
from drf_spectacular.generators import SchemaGenerator

from cloud.accounts.models import Project
from cloud.accounts.roles import ROLES
from cloud.common import permissions
from cloud.infra import secrets
from cloud.jobs import agents
from monitoring.services import queries
from tests.base.api import NOBODYS, Problems
from tests.base.clients import Client, admin_client, member_client
from tests.contract.everything import Everything, populate
from tests.contract.test_openapi_behaviour import NoStore
from tests.factories.accounts import ProjectFactory

pytestmark = [pytest.mark.matrix, pytest.mark.django_db]

# The permission of an act where it is not `<kind>.<verb>`; None: whoever is signed in.
PERMISSIONS: dict[str, str | None] = {
    "instances_destroy": "instance.destroy",
    "instances_guest": "instance.view",
    "images_create": "image.add",
    "hosts_create": "host.add",
    "primary_storages_create": "primary_storage.add",
    "backup_storages_create": "backup_storage.add",
    "l2_networks_add_vni_range": "l2_network.update",
    "l3_networks_check_address": "l3_network.view",
    "l3_networks_reserve_addresses": "ip_address.reserve",
    "l3_networks_release_addresses": "ip_address.release",
    "users_grant": "user.update",
    "users_revoke": "user.update",
    "settings_update": "setting.change",
    "settings_destroy": "setting.change",
    "settings_override": "setting.change",
    "settings_reset_override": "setting.change",
    "metrics_catalogue": "metric.view",
    "metrics_query": "metric.view",
    "metrics_query_range": "metric.view",
    "agents_upgrade_all": "agent.upgrade",
    "hosts_upgrade_agent": "agent.upgrade",
    "backup_storages_upgrade_agent": "agent.upgrade",
    "accounts_quotas": "quota.view",
    "accounts_change_quotas": "quota.change",
    "projects_quotas": "quota.view",
    "projects_change_quotas": "quota.change",
    "me_retrieve": None,
    "jobs_results": "job.view",
    "stuck_list": "state.view",
}
VERBS = {"list": "view", "retrieve": "view", "destroy": "delete"}
# What a project's people see of it, whatever they may do with it. All else is the platform's, or another person's.
OF_A_PROJECT = frozenset(
    (
        *("images", "instances", "volumes", "jobs", "audit-records", "projects", "accounts", "users"),
        *("l2-networks", "l3-networks", "ip-ranges", "ip-addresses", "nics"),
    )
)
OF_NOBODY = frozenset({"settings"})  # rows without an owner: rights alone decide


@dataclass(frozen=True)
class Route:
    """An operation of the API. `prefix` is its list's name, `path` has `{…}` for the row."""

    operation: str
    method: str
    path: str

    @property
    def prefix(self) -> str:
        return self.path.removeprefix("/api/v1/").partition("/")[0]

    @property
    def is_on_a_row(self) -> bool:
        return "{" in self.path

    @property
    def permission(self) -> str | None:
        if self.operation in PERMISSIONS:
            return PERMISSIONS[self.operation]
        if self.operation.endswith("_batch"):
            return None  # the verb in it decides
        if self.operation.endswith("_settle_state"):
            return "state.settle"
        verb = self.operation.removeprefix(self.prefix.replace("-", "_") + "_")
        return f"{_kind(self.prefix)}.{VERBS.get(verb, verb)}"

    def of(self, key: str) -> str:
        return self.path.partition("{")[0] + key + self.path.partition("}")[2] if self.is_on_a_row else self.path


def _kind(prefix: str) -> str:
    return prefix.replace("-", "_").removesuffix("es" if prefix.endswith("sses") else "s")


@cache
def routes() -> list[Route]:
    document = SchemaGenerator().get_schema(request=None, public=True)
    return [
        Route(operation["operationId"], method, path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture(autouse=True)
def _beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"agent_answers": False, "hostname": "", "addresses": [], "os": "", "macs": [], "domains": []}
    monkeypatch.setattr(agents, "ask", lambda agent, message, timeout=5.0: said)
    monkeypatch.setattr(secrets, "keep", lambda document: "secret-id")
    monkeypatch.setattr(queries, "_store", lambda url: NoStore())


@pytest.fixture
def project() -> Project:
    made: Project = ProjectFactory()
    return made


@pytest.fixture
def everything(project: Project) -> Everything:
    return populate(project)


def answers(client: Client, everything: Everything) -> Iterator[tuple[Route, Any]]:
    """What each operation answers to a request without input; nothing that happens stays."""
    for route in routes():
        with transaction.atomic():
            path = route.of(everything.key(route.prefix)) if route.is_on_a_row else route.path
            yield route, getattr(client, route.method)(path)
            transaction.set_rollback(True)


def test_every_act_has_a_declared_permission() -> None:
    named = {route.permission for route in routes()} - {None}
    assert named <= set(permissions.declared())
    assert len(routes()) > 100


class TestCallers(Problems):
    def test_nobody(self, everything: Everything, anonymous: Client) -> None:
        for _route, response in answers(anonymous, everything):
            self.assert_problem(response, 401, "not_signed_in")

    @pytest.mark.parametrize("role", [name for name in ROLES if not ROLES[name].sees_all])
    def test_people_of_the_project(self, everything: Everything, project: Project, role: str) -> None:
        self.expect(member_client(role, project), everything, OF_A_PROJECT | OF_NOBODY)

    @pytest.mark.parametrize("role", [name for name in ROLES if not ROLES[name].sees_all])
    def test_people_of_another_account(self, everything: Everything, role: str) -> None:
        self.expect(member_client(role), everything, OF_NOBODY)

    def test_an_auditor(self, everything: Everything) -> None:
        self.expect(member_client("auditor"), everything, frozenset(everything.rows) | OF_NOBODY)

    def test_the_administrator(self, everything: Everything) -> None:
        self.expect(admin_client(), everything, frozenset(everything.rows) | OF_NOBODY)

    def expect(self, client: Client, everything: Everything, seen: frozenset[str]) -> None:
        wrong = [
            f"{route.operation}: {response.status_code}, {reason}"
            for route, response in answers(client, everything)
            if (reason := self.against(route, response, client, everything, seen))
        ]
        assert not wrong, "\n".join(wrong)

    def against(self, route: Route, response: Any, client: Client, everything: Everything, seen: frozenset[str]) -> str:
        """What is wrong with an answer; empty when nothing is."""
        may = route.permission is None or client.actor.may(route.permission)
        if route.is_on_a_row and route.prefix not in seen:
            return "" if response.status_code == 404 else "what is not the caller's is not there"
        if not may:
            return "" if response.status_code == 403 and response.json()["code"] == "not_permitted" else "not permitted"
        if response.status_code in (401, 403, 404) or response.status_code >= 500:
            return "this may be done"
        if route.operation.endswith("_list") and route.prefix in everything.rows:
            keys = {row["uuid"] for row in response.json()["results"]}
            if (everything.key(route.prefix) in keys) != (route.prefix in seen):
                return "the list shows what is the caller's"
        return ""

    def test_what_is_nowhere(self, everything: Everything, admin: Client) -> None:
        found = {
            route.operation: getattr(admin, route.method)(
                route.of("no.such" if route.prefix == "settings" else NOBODYS)
            )
            for route in routes()
            if route.is_on_a_row
        }
        assert [
            f"{name}: {response.status_code}" for name, response in found.items() if response.status_code != 404
        ] == []
