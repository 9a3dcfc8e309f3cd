"""Every list costs a fixed number of SQL queries, whatever its page holds and however it is asked for."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cloud.accounts.services import actors
from cloud.common.api import pages
from cloud.common.api.cursor import Cursor, order
from cloud.common.api.viewsets import ResourceViewSet
from cloud.common.search import COLUMN, has_search_text
from cloud.portal.bench import cases, population
from cloud.urls import APPS
from compute.models import Instance
from tests.base.clients import Client, member_client

MOST_SQL = 10
ROWS = 60
LISTS: dict[str, Any] = {
    prefix: view for app in APPS for prefix, view in getattr(app, "routes", []) if issubclass(view, ResourceViewSet)
}
SEARCHED = sorted(prefix for prefix, view in LISTS.items() if has_search_text(view.queryset.model))


@pytest.fixture(scope="module")
def _many(django_db_setup: None, django_db_blocker: Any) -> Iterator[population.Population]:
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic():
        yield population.fill(ROWS, lambda _text: None)
        transaction.set_rollback(True)


@pytest.fixture
def many(_many: population.Population, db: None) -> population.Population:
    """A small copy of what the benchmark measures."""
    return _many


def queries(client: Client, path: str) -> tuple[int, int]:
    """The SQL statements of a page, and its rows."""
    client.get(path)  # what is done once, as noting the token's use, is done
    with CaptureQueriesContext(connection) as captured:
        response = client.get(path)
    assert response.status_code == 200, response.content
    return len(captured), len(response.json()["results"])


@pytest.mark.parametrize("prefix", sorted(LISTS))
def test_a_longer_page_costs_no_more_queries(prefix: str, many: population.Population, admin: Client) -> None:
    short, one = queries(admin, f"/api/v1/{prefix}/?limit=1")
    long, several = queries(admin, f"/api/v1/{prefix}/?limit=50")
    assert one <= 1
    assert short == long <= MOST_SQL or several == 0, f"{short} queries for {one} rows, {long} for {several}"


def test_the_copy_has_rows_of_what_is_measured(many: population.Population, admin: Client) -> None:
    for prefix in SEARCHED:
        assert admin.get(f"/api/v1/{prefix}/").json()["count"] >= ROWS, prefix


@pytest.mark.parametrize("prefix", SEARCHED)
@pytest.mark.parametrize("is_tenant", [False, True], ids=["admin", "tenant"])
def test_every_way_to_ask_for_a_page(
    prefix: str, is_tenant: bool, many: population.Population, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "EXACT_UP_TO", 5)  # the estimate is a statement more
    client = member_client(project=many.projects[0]) if is_tenant else admin
    view = LISTS[prefix]()
    assert client.user is not None
    wanted = cases.of(view, view.queryset.all().visible_to(actors.of(client.user)))
    narrowed = {case.query: case for case in wanted}
    assert len(narrowed) > len(view.search_fields)
    for case in narrowed.values():
        sql, _rows = queries(client, case.path(prefix))
        assert sql <= MOST_SQL, case


@pytest.mark.parametrize("prefix", SEARCHED)
def test_the_searched_column_is_made_of_what_the_view_says(prefix: str) -> None:
    view = LISTS[prefix]
    column: Any = view.queryset.model._meta.get_field(COLUMN)
    named = {part.name for part in column.expression.flatten() if hasattr(part, "name")}
    assert named == set(view.search_fields)


@pytest.mark.parametrize("few", [0, 10**9], ids=["by the ordering's index", "sorted when found"])
@pytest.mark.parametrize("ordering", ["name", "-name", "created_at", "-created_at"])
def test_a_page_holds_what_a_plain_query_would(
    few: int, ordering: str, many: population.Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FEW", few)
    rows = Instance.objects.filter(state="running").select_related("host")
    whole = list(order(rows, ordering))
    assert len(whole) > 20
    assert pages.page(rows, ordering, None, 7, len(whole)) == whole[:7]
    cursor = Cursor.of(whole[6], ordering)
    assert pages.page(rows, ordering, cursor, 7, len(whole)) == whole[7:14]


def test_nothing_matches_costs_one_query(many: population.Population, django_assert_num_queries: Any) -> None:
    rows = Instance.objects.filter(name="nobody")
    with django_assert_num_queries(1):
        matches, is_estimate = pages.count(rows)
        assert (matches, is_estimate) == (0, False)
        assert pages.page(rows, "name", None, 7, matches) == []


@pytest.mark.parametrize("prefix", SEARCHED)
def test_a_search_can_use_its_index(prefix: str, many: population.Population) -> None:
    model = LISTS[prefix].queryset.model
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        sql, parameters = model.objects.filter(search_text__holds="prod").order_by().query.sql_with_params()
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Bitmap Index Scan" in plan, plan


@pytest.mark.parametrize(
    ("name", "text", "is_found"),
    [
        ("Straße ÄÖÜ", "äöü", True),
        ("数据库-1", "据库", True),
        ("a%b", "%", True),
        ("axb", "%", False),
        ("a_b", "a_b", True),
        ("axb", "a_b", False),
        ("back\\slash", "k\\s", True),
        ("one two", "two one", True),
        ("one two", "one three", False),
    ],
)
def test_what_a_search_finds(name: str, text: str, is_found: bool, many: population.Population, admin: Client) -> None:
    key = many.instances[0]["uuid"]
    Instance.objects.filter(pk=key).update(name=name)
    found = [row["uuid"] for row in admin.get("/api/v1/instances/", {"q": text, "limit": 500}).json()["results"]]
    assert (str(key) in found) is is_found
