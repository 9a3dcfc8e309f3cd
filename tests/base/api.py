"""A dozen API tests for a resource from a `factory =` line."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.base.clients import Client, member_client

MOST_QUERIES = 10
NOBODYS = "00000000-0000-4000-8000-000000000000"


class Problems:
    """Asserts about problem documents."""

    @staticmethod
    def assert_problem(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
        assert response.status_code == status, response.content
        assert response.headers["Content-Type"] == "application/problem+json"
        body: dict[str, Any] = response.json()
        assert {"type", "title", "status", "detail", "code", "errors", "advice", "request_id"} <= body.keys()
        assert body["status"] == status
        assert body["detail"]
        assert body["request_id"] == response.headers["X-Request-Id"]
        if code is not None:
            assert body["code"] == code, body
        return body


@pytest.mark.django_db
class ListApiTests(Problems):
    """Tests of a list that is only looked at.

    `prefix` is its place in the API, `factory` makes a row and takes `project` unless `has_project` is false.
    `filters` maps a filter to the function that reads its value from a row. `list_queries` is the recorded number of
    SQL queries of a page, signing in included; left out, a page must do with ten, however long it is.
    """

    prefix: ClassVar[str]
    factory: ClassVar[Callable[..., Any]]
    has_project: ClassVar[bool] = True
    search: ClassVar[Callable[[Any], str] | None] = staticmethod(lambda row: row.name)
    filters: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    orderings: ClassVar[tuple[str, ...]] = ("created_at", "name")
    list_queries: ClassVar[int | None] = None

    @property
    def path(self) -> str:
        return f"/api/v1/{self.prefix}/"

    def detail(self, row: Any, verb: str = "") -> str:
        return f"{self.path}{row.pk}/{verb}/" if verb else f"{self.path}{row.pk}/"

    def make(self, client: Client, **fields: Any) -> Any:
        """A row that the client sees."""
        if self.has_project:
            fields.setdefault("project", client.project)
        return type(self).factory(**fields)

    def rows(self, client: Client, **query: Any) -> list[str]:
        """The uuids of a list."""
        response = client.get(self.path, query)
        assert response.status_code == 200, response.content
        return [row["uuid"] for row in response.json()["results"]]

    def test_list(self, admin: Client) -> None:
        made = self.make(admin)
        body = admin.get(self.path).json()
        assert set(body) == {"results", "next", "count", "count_is_estimate"}
        assert str(made.pk) in [row["uuid"] for row in body["results"]]
        assert body["count"] == len(body["results"])
        assert body["count_is_estimate"] is False

    def test_detail(self, admin: Client) -> None:
        made = self.make(admin)
        body = admin.get(self.detail(made)).json()
        assert body["uuid"] == str(made.pk)
        assert body["url"] == self.detail(made)

    def test_absent(self, admin: Client) -> None:
        self.assert_problem(admin.get(f"{self.path}{NOBODYS}/"), 404, "not_found")

    def test_anonymous(self, admin: Client, anonymous: Client) -> None:
        made = self.make(admin)
        for path in (self.path, self.detail(made)):
            response = anonymous.get(path)
            self.assert_problem(response, 401, "not_signed_in")
            assert response.headers["WWW-Authenticate"].startswith("Bearer")

    def test_foreign_is_absent(self, admin: Client, tenant: Client) -> None:
        made = self.make(admin)
        self.assert_problem(tenant.get(self.detail(made)), 404, "not_found")
        response = tenant.get(self.path)
        if response.status_code == 200:
            assert str(made.pk) not in [row["uuid"] for row in response.json()["results"]]
        else:
            self.assert_problem(response, 403, "not_permitted")

    def test_pages(self, admin: Client) -> None:
        for _ in range(5):
            self.make(admin)
        whole = self.rows(admin)
        walked, path = [], f"{self.path}?limit=2"
        while path:
            body = admin.get(path).json()
            assert body["count"] == len(whole)
            assert len(body["results"]) <= 2
            walked += [row["uuid"] for row in body["results"]]
            path = body["next"]
        assert walked == whole

    def test_ordering(self, admin: Client) -> None:
        for _ in range(3):
            self.make(admin)
        for name in self.orderings:
            up, down = self.rows(admin, ordering=name), self.rows(admin, ordering=f"-{name}")
            assert up == down[::-1]
            assert len(up) >= 3
        self.assert_problem(admin.get(self.path, {"ordering": "nonsense"}), 400, "bad_ordering")

    def test_search(self, admin: Client) -> None:
        if self.search is None:
            pytest.skip("nothing to search for in this list")
        made, other = self.make(admin), self.make(admin)
        found = self.rows(admin, q=self.search(made))
        assert str(made.pk) in found
        assert str(other.pk) not in found
        assert self.rows(admin, q="no such thing at all") == []
        assert self.rows(admin, q=str(made.pk)) == [str(made.pk)]

    def test_filters(self, admin: Client) -> None:
        made = self.make(admin)
        for name, read in self.filters.items():
            assert str(made.pk) in self.rows(admin, **{name: read(made)}), name
        self.assert_problem(admin.get(self.path, {"nonsense": "1"}), 400, "unknown_parameter")

    def test_bad_page(self, admin: Client) -> None:
        for limit in ("0", "501", "-1", "x", "1e3", ""):
            self.assert_problem(admin.get(self.path, {"limit": limit}), 400, "bad_limit")
        self.assert_problem(admin.get(self.path, {"cursor": "made-up"}), 400, "bad_cursor")

    def test_queries_do_not_grow(self, admin: Client) -> None:
        self.make(admin)
        few = self._queries(admin)
        for _ in range(6):
            self.make(admin)
        many = self._queries(admin)
        assert len(many) == len(few), "\n".join(query["sql"] for query in many.captured_queries)
        assert len(many) <= (self.list_queries or MOST_QUERIES), "\n".join(q["sql"] for q in many.captured_queries)

    def _queries(self, client: Client) -> CaptureQueriesContext:
        client.get(self.path)  # what is done once, as noting the token's use, is done
        with CaptureQueriesContext(connection) as captured:
            assert client.get(self.path).status_code == 200
        return captured


class ResourceApiTests(ListApiTests):
    """Tests of a list that can be changed too.

    `create_body` and `update_body` are plain dictionaries, or functions of the client that make them; None where the
    resource has no such act. `creates_job` and `deletes_job` say which acts are answered 202 with a job.
    """

    create_body: ClassVar[Any] = None
    update_body: ClassVar[Any] = {"name": "another name"}
    can_delete: ClassVar[bool] = True
    creates_job: ClassVar[bool] = False
    deletes_job: ClassVar[bool] = False

    def body(self, name: str, client: Client) -> dict[str, Any]:
        # Read as written on the class: a function there makes a body and is no method.
        wanted = inspect.getattr_static(type(self), name)
        if wanted is None:
            pytest.skip("this resource has no such act")
        return dict(wanted(client) if callable(wanted) else wanted)

    def create(self, client: Client, **extra: Any) -> Any:
        return client.post(self.path, {**self.body("create_body", client), **extra})

    def test_create(self, admin: Client) -> None:
        response = self.create(admin)
        assert response.status_code == (202 if self.creates_job else 201), response.content
        if self.creates_job:
            assert response.headers["Location"] == response.json()["job"]
            assert response.json()["results"][0]["url"].startswith(self.path)
        else:
            assert response.headers["Location"] == response.json()["url"]
            assert admin.get(response.json()["url"]).status_code == 200

    def test_create_refuses_unknown_fields(self, admin: Client) -> None:
        problem = self.assert_problem(self.create(admin, nonsense=1), 400, "unknown_field")
        assert "nonsense" in problem["errors"]

    def test_create_refuses_what_is_not_json(self, admin: Client) -> None:
        self.body("create_body", admin)
        for text in ("{", "[]", "nonsense", '{"name": NaN}', '{"name": "\\u0000"}', '{"name": "\\ud800"}', "\xff"):
            response = admin.post(self.path, text.encode("latin-1"), content_type="application/json")
            self.assert_problem(response, 400)
        self.assert_problem(admin.post(self.path, "name=x", content_type="text/plain"), 415, "unsupported_media_type")

    def test_create_needs_the_right(self, anonymous: Client, db: None) -> None:
        body = self.body("create_body", member_client("platform_admin"))
        self.assert_problem(anonymous.post(self.path, body), 401, "not_signed_in")
        self.assert_problem(member_client("monitor_only").post(self.path, body), 403, "not_permitted")

    def test_create_once(self, admin: Client) -> None:
        body = self.body("create_body", admin)
        first, again = (admin.post(self.path, body, headers={"Idempotency-Key": "one"}) for _ in range(2))
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"
        other = admin.post(self.path, {**body, "nonsense": 1}, headers={"Idempotency-Key": "one"})
        self.assert_problem(other, 422, "idempotency_key_reused")

    def test_update(self, admin: Client) -> None:
        made = self.make(admin)
        body = self.body("update_body", admin)
        response = admin.patch(self.detail(made), body)
        assert response.status_code == 200, response.content
        assert {name: response.json().get(name) for name in body} == body
        self.assert_problem(admin.patch(self.detail(made), {"uuid": NOBODYS}), 400, "unknown_field")

    def test_foreign_cannot_be_changed(self, admin: Client, tenant: Client) -> None:
        made = self.make(admin)
        if self.update_body is not None:
            self.assert_problem(tenant.patch(self.detail(made), {}), 404, "not_found")
        if self.can_delete:
            self.assert_problem(tenant.delete(self.detail(made)), 404, "not_found")

    def test_delete(self, admin: Client) -> None:
        if not self.can_delete:
            pytest.skip("this resource has no such act")
        made = self.make(admin)
        response = admin.remove(self.detail(made))
        assert response.status_code == (202 if self.deletes_job else 204), response.content
        if not self.deletes_job:
            self.assert_problem(admin.get(self.detail(made)), 404, "not_found")
