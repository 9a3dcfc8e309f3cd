"""The metrics addresses: scope, limits, and problems with advice. The store is a stand-in; no database is needed."""

import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework.test import APIRequestFactory, force_authenticate

from cloud.common.actor import Actor
from cloud.common.driver import Rejected, Transient
from monitoring.api import views
from monitoring.services import queries

ADMIN = Actor(name="admin", grants=frozenset({"*"}), sees_all=True)
MINE = uuid.UUID(int=1)
TENANT = Actor(name="tenant", grants=frozenset({"metric.*"}), projects=frozenset({MINE}))
GOOD = {"status": "success", "data": {"resultType": "matrix", "result": []}}


class FakeStore:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def query(self, query: str, **parameters: Any) -> dict[str, Any]:
        return self._answer("query", query, parameters)

    def query_range(self, query: str, **parameters: Any) -> dict[str, Any]:
        return self._answer("query_range", query, parameters)

    def _answer(self, verb: str, query: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.asked.append((verb, query, parameters))
        return GOOD


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    fake = FakeStore()
    monkeypatch.setattr(queries, "_store", lambda _url: fake)
    return fake


def get(view: Any, actor: Actor | None, **parameters: Any) -> tuple[int, Any]:
    request = APIRequestFactory().get("/api/v1/metrics/x", parameters)
    request.actor = actor  # type: ignore[attr-defined]
    if actor:
        force_authenticate(request, user=SimpleNamespace(is_authenticated=True, pk=uuid.UUID(int=9)))
    response = view.as_view(authentication_classes=[])(request).render()
    return response.status_code, json.loads(response.content)


def test_instant_answer_is_the_stores_own(store: FakeStore) -> None:
    assert get(views.MetricsQueryView, ADMIN, query="up", time="2026-01-31T12:00:00Z") == (200, GOOD)
    assert store.asked == [("query", "up", {"time": 1769860800.0, "only": ""})]


def test_a_tenant_sees_its_projects_alone(store: FakeStore) -> None:
    get(views.MetricsQueryView, TENANT, query="up")
    get(views.MetricsQueryView, Actor(name="x", grants=frozenset({"*"})), query="up")
    assert [asked[2]["only"] for asked in store.asked] == [f'{{project=~"{MINE}"}}', '{project=~"none"}']


def test_range_chooses_a_step(store: FakeStore) -> None:
    for span in (60, 86400):
        assert get(views.MetricsQueryRangeView, ADMIN, query="up", start=1000, end=1000 + span)[0] == 200
    get(views.MetricsQueryRangeView, ADMIN, query="up", start=0, end=3600, step="1m30s")
    assert [asked[2]["step_s"] for asked in store.asked] == [10.0, 288.0, 90]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"start": 0, "end": 1}, "query"),
        ({"query": " ", "start": 0, "end": 1}, "query"),
        ({"query": "a\0", "start": 0, "end": 1}, "query"),
        ({"query": "x" * 9000, "start": 0, "end": 1}, "query"),
        ({"query": "up", "end": 1}, "start"),
        ({"query": "up", "start": "yesterday", "end": 1}, "start"),
        ({"query": "up", "start": "2026-01-31T12:00:00", "end": 1}, "start"),
        ({"query": "up", "start": "nan", "end": 1}, "start"),
        ({"query": "up", "start": 5, "end": 1}, "end"),
        ({"query": "up", "start": 0, "end": 401 * 86400}, "start"),
        ({"query": "up", "start": 0, "end": 86400, "step": "1s"}, "step"),
        ({"query": "up", "start": 0, "end": 10, "step": "0.1"}, "step"),
        ({"query": "up", "start": 0, "end": 10, "step": "1x"}, "step"),
        ({"query": "up", "start": 0, "end": 10, "bogus": "1"}, "bogus"),
    ],
)
def test_bad_questions_name_the_field(store: FakeStore, parameters: dict[str, Any], field: str) -> None:
    status, problem = get(views.MetricsQueryRangeView, ADMIN, **parameters)
    assert status == 400
    assert list(problem["errors"]) == [field]
    assert not store.asked


def test_refused_by_the_store(store: FakeStore) -> None:
    store.error = Rejected("bad_query", "unparsable: up{")
    status, problem = get(views.MetricsQueryView, ADMIN, query="up{")
    assert (status, problem["code"], problem["errors"]) == (400, "bad_query", {"query": ["unparsable: up{"]})


def test_store_down_is_503_with_advice(store: FakeStore) -> None:
    store.error = Transient("store_unreachable", "secret address")
    status, problem = get(views.MetricsQueryView, ADMIN, query="up")
    assert (status, problem["code"]) == (503, "metrics_unavailable")
    assert "again" in problem["advice"]
    assert "secret" not in json.dumps(problem)


def test_who_may_ask(store: FakeStore) -> None:
    view, nobody = views.MetricsQueryView, Actor(name="nobody")
    assert get(view, nobody, query="up")[0] == 403
    assert get(view, None, query="up")[0] in (401, 403)
    assert get(views.MetricsCatalogueView, nobody)[0] == 403
    assert not store.asked


def test_catalogue() -> None:
    status, body = get(views.MetricsCatalogueView, TENANT, resource="instance")
    assert status == 200
    assert body["count"] == len(body["results"]) > 10
    assert {row["resource"] for row in body["results"]} == {"instance"}
    row = next(row for row in body["results"] if row["name"] == "mica_instance_cpu_used_percent")
    assert (row["unit"], row["kind"], row["labels"]) == ("percent", "gauge", ["instance", "project", "host"])
