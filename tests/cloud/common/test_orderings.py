"""Every list in every order that it has: pages over ties and nulls, while rows come and go."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

import cloud.urls  # noqa: F401 - registers every list
from cloud.common.api import columns, pages, router
from compute.models import Instance
from tests.base.clients import Client
from tests.contract.everything import populate
from tests.factories.compute import InstanceFactory
from tests.factories.infra import HostFactory

LISTS = {prefix: view for prefix, view, _name in router._router.registry if getattr(view, "queryset", None) is not None}


def walk(client: Client, prefix: str, between: Any = None, **query: Any) -> list[str]:
    path: str | None = f"/api/v1/{prefix}/?" + "&".join(f"{name}={value}" for name, value in query.items())
    walked: list[str] = []
    while path:
        response = client.get(path)
        assert response.status_code == 200, response.content
        walked += [row["uuid"] for row in response.json()["results"]]
        path = response.json()["next"]
        if path and between:
            between(walked)
    return walked


@pytest.mark.django_db
@pytest.mark.parametrize("prefix", LISTS)
def test_every_order_of_every_list(prefix: str, admin: Client) -> None:
    populate()
    view = LISTS[prefix]
    names = columns.orderable(view)
    assert "created_at" in names
    for name in names:
        up = walk(admin, prefix, ordering=name, limit=1)
        assert len(up) == len(set(up)) == admin.get(f"/api/v1/{prefix}/").json()["count"], name
        assert walk(admin, prefix, ordering=f"-{name}", limit=2) == up[::-1], name


@pytest.mark.django_db
@pytest.mark.parametrize("ordering", ["host", "-host", "destroyed_at", "-destroyed_at", "cpu", "-cpu"])
def test_rows_that_come_and_go(admin: Client, ordering: str) -> None:
    """Ties and nulls: who stays is seen once, whoever comes and goes meanwhile."""
    hosts = [HostFactory(name=name) for name in "ab"]
    staying = [InstanceFactory.running(place=hosts[number % 2]) for number in range(4)]
    staying += [InstanceFactory(place=hosts[0]) for _ in range(4)]
    going = [InstanceFactory(place=hosts[0]) for _ in range(4)]

    def change(walked: list[str]) -> None:
        if going:
            Instance.objects.filter(pk=going.pop().pk).delete()
        InstanceFactory(place=hosts[1])

    walked = walk(admin, "instances", change, ordering=ordering, limit=3)
    assert len(walked) == len(set(walked))
    assert {str(row.pk) for row in staying} <= set(walked)


@pytest.mark.django_db
def test_what_has_no_value_comes_last(admin: Client) -> None:
    host = HostFactory()
    nowhere, somewhere = InstanceFactory(place=host), InstanceFactory.running(place=host)
    assert walk(admin, "instances", ordering="host", limit=1) == [str(somewhere.pk), str(nowhere.pk)]
    assert walk(admin, "instances", ordering="-host", limit=1) == [str(nowhere.pk), str(somewhere.pk)]


@pytest.mark.django_db
@pytest.mark.parametrize("prefix", LISTS)
def test_every_filter_of_every_list(prefix: str, admin: Client) -> None:
    """A row is found by each value that it shows, and not by another."""
    populate()
    row = admin.get(f"/api/v1/{prefix}/").json()["results"][0]
    for name in columns.filterable(LISTS[prefix]) if not hasattr(LISTS[prefix], "filterset_class") else ():
        value = row.get(name)
        value = value.get("uuid") if isinstance(value, dict) else value
        if value in (None, "", []) or isinstance(value, list):
            continue
        asked = str(value).lower() if isinstance(value, bool) else value
        found = admin.get(f"/api/v1/{prefix}/", {name: asked})
        assert found.status_code == 200, (name, found.content)
        assert row["uuid"] in [each["uuid"] for each in found.json()["results"]], name


@pytest.mark.django_db
def test_a_page_of_500_costs_as_much_sql_as_one_of_50(admin: Client) -> None:
    host = HostFactory()
    template = InstanceFactory(place=host)
    columns_ = {field.attname: getattr(template, field.attname) for field in Instance._meta.fields}
    del columns_["uuid"], columns_["settled_at"]
    Instance.objects.bulk_create(Instance(**columns_) for _ in range(520))
    counts = []
    for limit in (50, 500):
        admin.get("/api/v1/instances/", {"limit": limit, "fields": "acts"})
        with CaptureQueriesContext(connection) as captured:
            page = admin.get("/api/v1/instances/", {"limit": limit, "fields": "acts"}).json()
        assert len(page["results"]) == limit
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 10


@pytest.mark.django_db
def test_an_estimate_is_of_what_is_asked_for(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostFactory()
    for number in range(6):
        InstanceFactory(place=host, name=f"web-{number}", state="stopped")
    InstanceFactory(place=host, name="other", state="created")
    monkeypatch.setattr(pages, "EXACT_UP_TO", 3)
    for query in ({}, {"q": "web"}, {"state": "stopped"}):
        body = admin.get("/api/v1/instances/", query).json()
        assert (body["count_is_estimate"], body["count"] > 3) == (True, True), query
    for query in ({"q": "other"}, {"state": "created"}):
        body = admin.get("/api/v1/instances/", query).json()
        assert (body["count_is_estimate"], body["count"]) == (False, 1), query
