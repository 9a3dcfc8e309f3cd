"""Every way for a request to go wrong ends in a problem document."""

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, IntegrityError, OperationalError
from django.http import Http404
from rest_framework import exceptions

from cloud.accounts.services import accounts
from cloud.common.api import problems
from cloud.common.errors import Conflict, NoHostFits
from tests.base.api import Problems
from tests.base.clients import Client


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoHostFits("none", reasons=[{"host": "a"}]), 409, "no_host_fits"),
        (Http404(), 404, "not_found"),
        (PermissionDenied("no"), 403, "not_permitted"),
        (SuspiciousOperation(), 400, "malformed_request"),
        (RequestDataTooBig(), 413, "too_large"),
        (IntegrityError(), 409, "conflict"),
        (DataError(), 400, "invalid"),
        (OperationalError(), 503, "unavailable"),
        (exceptions.ParseError(), 400, "malformed_json"),
        (exceptions.NotAuthenticated(), 401, "not_signed_in"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.Throttled(), 429, "throttled"),
    ],
)
def test_translation(error: Exception, status: int, code: str) -> None:
    response = problems.handle(error, {})
    assert (response.status_code, response.data["code"]) == (status, code)
    assert response.content_type == "application/problem+json"
    assert response.data["title"]
    assert response.data["detail"]


def test_extra_members_are_told_but_never_replace_the_standard_ones() -> None:
    document = problems.document(Conflict("busy", job="/api/v1/jobs/x/", status=200), "r1")
    assert document["job"] == "/api/v1/jobs/x/"
    assert document["status"] == 409
    assert document["request_id"] == "r1"


def test_nested_errors_have_dotted_paths() -> None:
    detail = {"nics": [{}, {"ip": ["bad"]}], "root": {"body": ["odd"]}, "body": ["whole"]}
    assert dict(problems.flatten(detail)) == {"nics.1.ip": "bad", "root": "odd", "body": "whole"}


@pytest.mark.django_db
class TestDoors(Problems):
    def test_unknown_route(self, admin: Client, anonymous: Client) -> None:
        for path in ("/api/", "/api/v1/nonsense/", "/api/v1/accounts/not-a-uuid/", "/api/v2/accounts/"):
            self.assert_problem(admin.get(path), 404, "unknown_route")
            self.assert_problem(anonymous.post(path), 404, "unknown_route")

    def test_missing_slash_is_told(self, admin: Client) -> None:
        problem = self.assert_problem(admin.post("/api/v1/accounts", {"name": "x"}), 404, "unknown_route")
        assert "slash" in problem["advice"]

    def test_method_not_allowed(self, admin: Client) -> None:
        for response in (admin.put("/api/v1/accounts/", {}), admin.options("/api/v1/accounts/")):
            self.assert_problem(response, 405, "method_not_allowed")
            assert "GET" in response.headers["Allow"]

    def test_endless_nesting(self, admin: Client) -> None:
        deep = "[" * 200_000
        self.assert_problem(
            admin.post("/api/v1/accounts/", deep, content_type="application/json"), 400, "malformed_json"
        )

    def test_too_large(self, admin: Client, settings: Any) -> None:
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
        body = {"name": "x" * 200}
        self.assert_problem(admin.post("/api/v1/accounts/", body), 413, "too_large")
        account = admin.user.account
        self.assert_problem(admin.patch(f"/api/v1/accounts/{account.pk}/", body), 413, "too_large")

    def test_a_defect_of_ours(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        from cloud.accounts.api.views import AccountViewSet

        monkeypatch.setattr(AccountViewSet, "get_queryset", lambda _self: 1 / 0)
        problem = self.assert_problem(admin.get("/api/v1/accounts/"), 500, "internal_error")
        assert "division" not in str(problem)

    def test_bad_token(self, anonymous: Client) -> None:
        for secret in ("mica_wrong", "wrong", "", "mica_\udc80"):
            response = anonymous.get("/api/v1/me/", HTTP_AUTHORIZATION=f"Bearer {secret}")
            self.assert_problem(response, 401, "bad_token")

    def test_search_with_nul(self, admin: Client) -> None:
        self.assert_problem(admin.get("/api/v1/accounts/", {"q": "\x00"}), 400, "bad_search")
        self.assert_problem(admin.get("/api/v1/users/", {"username": "\x00"}), 400, "invalid")

    def test_the_ends_of_time(self, admin: Client) -> None:
        for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z"):
            for name in ("since", "until"):
                response = admin.get("/api/v1/audit-records/", {name: moment})
                assert response.status_code in (200, 400), response.content
            response = admin.post("/api/v1/api-tokens/", {"name": "t", "expires_at": moment})
            assert response.status_code in (201, 400), response.content

    def test_a_filter_that_is_no_uuid(self, admin: Client) -> None:
        problem = self.assert_problem(admin.get("/api/v1/projects/", {"account": "x"}), 400, "invalid")
        assert "account" in problem["errors"]

    def test_a_filter_that_is_neither_true_nor_false(self, admin: Client) -> None:
        assert admin.get("/api/v1/users/", {"is_active": "true"}).json()["count"] == 1
        assert admin.get("/api/v1/users/", {"is_active": "false"}).json()["count"] == 0
        for odd in ("1", "yes", "-363"):
            self.assert_problem(admin.get("/api/v1/users/", {"is_active": odd}), 400, "invalid")

    def test_request_id(self, admin: Client) -> None:
        given = admin.get("/api/v1/me/", headers={"X-Request-Id": "mine-1"})
        assert given.headers["X-Request-Id"] == "mine-1"
        odd = admin.get("/api/v1/me/", headers={"X-Request-Id": "no spaces, please"})
        assert odd.headers["X-Request-Id"] != "no spaces, please"

    def test_in_use_says_by_what(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        from django.db.models import ProtectedError

        def refuse(row: Any) -> None:
            raise ProtectedError("used", {admin.user, admin.user.account})

        made = accounts.create(actor=admin.actor, name="held")
        monkeypatch.setattr(type(made), "delete", refuse)
        problem = self.assert_problem(admin.remove(f"/api/v1/accounts/{made.pk}/"), 409, "in_use")
        assert problem["uses"] == {"account": 1, "user": 1}
