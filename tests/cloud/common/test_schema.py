"""The OpenAPI document: valid, without a warning, and true to our doors."""

import re
from typing import Any

import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

# Answers with a job for each machine or finding: they have no one place to go to.
SEVERAL_JOBS = {"Deeds", "Jobs"}


@pytest.fixture(scope="module")
def schema() -> Any:
    GENERATOR_STATS.reset()
    with GENERATOR_STATS.silence():
        return SchemaGenerator().get_schema(request=None, public=True)


def operations(schema: Any) -> list[tuple[str, str, Any]]:
    return [(path, method, body) for path, item in schema["paths"].items() for method, body in item.items()]


def test_is_valid(schema: Any) -> None:
    validate_schema(schema)
    assert schema["openapi"] == "3.1.0"


def test_is_made_without_a_warning(schema: Any) -> None:
    assert [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache] == []


def test_every_operation_may_answer_a_problem(schema: Any) -> None:
    for path, method, operation in operations(schema):
        responses = operation["responses"]
        for status in ("400", "401", "403", "default", *(("404",) if "{" in path else ())):
            content = responses[status]["content"]
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem"), (path, method, status)


def test_every_write_takes_a_key(schema: Any) -> None:
    for path, method, operation in operations(schema):
        names = [parameter["name"] for parameter in operation.get("parameters", [])]
        assert ("Idempotency-Key" in names) == (method != "get"), (path, method)


def test_every_job_tells_its_place(schema: Any) -> None:
    for path, _method, operation in operations(schema):
        if "202" in operation["responses"]:
            content = operation["responses"]["202"]["content"]["application/json"]
            if content["schema"]["$ref"].rpartition("/")[2] in SEVERAL_JOBS:
                continue
            assert "Location" in operation["responses"]["202"]["headers"], path
            assert content["schema"]["$ref"].endswith("Accepted"), path


def test_every_list_has_the_envelope(schema: Any) -> None:
    lists = [operation for _p, _m, operation in operations(schema) if operation["operationId"].endswith("_list")]
    assert len(lists) > 4
    for operation in lists:
        name = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        properties = schema["components"]["schemas"][name]["properties"]
        known = {"results", "next", "count", "count_is_estimate"}
        assert set(properties) == known or (name == "Diagnosis" and set(properties) > known), name


def test_both_ways_to_sign_in(schema: Any) -> None:
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert schema["components"]["securitySchemes"]["session"]["in"] == "cookie"
    for path, _method, operation in operations(schema):
        assert operation["security"] == [{"token": []}, {"session": []}], path


def test_operations_have_plain_names_and_words(schema: Any) -> None:
    for path, method, operation in operations(schema):
        assert re.fullmatch(r"[a-z0-9_]+", operation["operationId"]), operation["operationId"]
        assert operation.get("summary"), (path, method)
