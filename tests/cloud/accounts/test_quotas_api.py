"""Quotas through the API: everybody sees their own, administrators set them."""

import pytest

from cloud.events.models import AuditRecord
from tests.base.api import Problems
from tests.base.clients import Client, member_client
from tests.factories.accounts import AccountFactory, ProjectFactory

pytestmark = pytest.mark.django_db


def names(body: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    return {row["name"]: row["limit"] for row in body["results"]}


class TestQuotas(Problems):
    def test_own_account_and_project(self, tenant: Client) -> None:
        body = tenant.get("/api/v1/quotas/").json()
        assert {row["scope"] for row in body["results"]} == {"account", "project"}
        assert body["count"] == len(body["results"]) == 2 * len(names(body))
        row = next(row for row in body["results"] if (row["scope"], row["name"]) == ("project", "volume_bytes"))
        assert row["owner"]["uuid"] == str(tenant.project.pk)
        assert (row["used"], row["limit"], row["available"], row["unit"]) == (0, None, None, "bytes")

    @pytest.mark.parametrize("kind", ["accounts", "projects"])
    def test_set_and_taken_away(self, admin: Client, tenant: Client, kind: str) -> None:
        key = tenant.project.account_id if kind == "accounts" else tenant.project.pk
        path = f"/api/v1/{kind}/{key}/quotas/"
        answer = admin.patch(path, {"limits": [{"name": "instances", "limit": 3}, {"name": "cpu", "limit": 0}]})
        assert answer.status_code == 200, answer.content
        assert {name for name, limit in names(answer.json()).items() if limit is not None} == {"instances", "cpu"}
        row = next(row for row in tenant.get(path).json()["results"] if row["name"] == "instances")
        assert (row["used"], row["limit"], row["available"]) == (0, 3, 3)
        assert admin.patch(path, {"limits": [{"name": "cpu", "limit": None}]}).status_code == 200
        assert names(tenant.get(path).json())["cpu"] is None
        record = AuditRecord.objects.filter(action="quota.change").latest("created_at")
        assert (record.resource_uuid, record.detail) == (key, {"limits": {"cpu": None}})

    def test_tenants_set_none(self, tenant: Client) -> None:
        path = f"/api/v1/accounts/{tenant.project.account_id}/quotas/"
        self.assert_problem(tenant.patch(path, {"limits": []}), 403, "not_permitted")

    def test_those_of_others_are_not_there(self, tenant: Client) -> None:
        for path in (f"accounts/{AccountFactory().pk}", f"projects/{ProjectFactory().pk}"):
            self.assert_problem(tenant.get(f"/api/v1/{path}/quotas/"), 404, "not_found")

    @pytest.mark.parametrize(
        "limits",
        [
            [],
            [{"name": "ponies", "limit": 1}],
            [{"name": "cpu", "limit": -1}],
            [{"name": "cpu", "limit": "8"}],
            [{"name": "cpu"}],
            [{"name": "cpu", "limit": 2**53}],
            [{"name": "cpu", "limit": 1}, {"name": "cpu", "limit": 2}],
        ],
    )
    def test_bad_input_changes_nothing(self, admin: Client, limits: list[object]) -> None:
        path = f"/api/v1/accounts/{AccountFactory().pk}/quotas/"
        assert admin.patch(path, {"limits": limits}).status_code == 400
        assert set(names(admin.get(path).json()).values()) == {None}

    def test_a_member_of_another_role_sees_them_too(self) -> None:
        assert member_client("monitor_only").get("/api/v1/quotas/").status_code == 200
