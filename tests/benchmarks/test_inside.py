"""What is measured inside the application: the meter, and the whole of `bench_lists` in small."""

import io
import json
import os

import pytest
from django.core.management import call_command
from django.db import connection

from cloud.portal.bench import scratch
from cloud.portal.bench.lists import percentile
from cloud.portal.bench.meter import Meter
from tests.base.clients import admin_client


@pytest.mark.django_db(transaction=True)
def test_a_request_is_metered() -> None:
    token = admin_client()._credentials["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    with Meter() as meter:
        meter.get("/api/v1/zones/", token)
        sample = meter.get("/api/v1/zones/?limit=5", token)
        refused = meter.get("/api/v1/zones/", "mica_nobodys")
    assert sample.status == 200
    assert sample.body["results"] == []
    assert 1 < len(sample.statements) <= 10
    assert 0 < sample.sql_ms < sample.server_ms
    assert refused.status == 401


@pytest.mark.django_db(transaction=True)
def test_lists_are_measured_in_a_database_that_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"bench_test_{os.getpid()}"
    monkeypatch.setattr(scratch, "NAME", name)
    home = connection.settings_dict["NAME"]
    out = io.StringIO()
    call_command("bench_lists", rows=60, most=4, lists=["instances", "jobs"], stdout=out, stderr=io.StringIO())
    measured = json.loads(out.getvalue())
    assert set(measured) == {"instances", "jobs"}
    for figures in measured.values():
        assert figures["requests"] >= 8
        assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["most_ms"]
        assert figures["most_sql"] <= 10
    assert connection.settings_dict["NAME"] == home
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [name])
        assert cursor.fetchone() == (0,)


def test_a_percentile() -> None:
    assert percentile(list(range(101)), 95) == 95
    assert percentile([7.0], 95) == 7.0
