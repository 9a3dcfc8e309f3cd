"""The API does what its OpenAPI document says, whatever it is sent: made-up requests to every operation, by
schemathesis, against one of everything. Good input and bad input, on rows that are there and on rows that are not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cloud.accounts.services import bootstrap
from cloud.common.wire import Document
from cloud.config import services as config
from cloud.infra import secrets
from cloud.jobs import agents
from monitoring.services import queries
from tests.contract.everything import Everything, populate
from tests.factories.accounts import token_of

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
GOOD, BAD = 12, 8  # requests to each operation

document = SchemaGenerator().get_schema(request=None, public=True)
schema = schemathesis.openapi.from_dict(document)
OPERATIONS = {found.ok().definition.raw["operationId"]: found.ok() for found in schema.get_all_operations()}


class NoStore:
    """A metric store that has nothing to tell."""

    def query(self, query: str, **parameters: Any) -> Document:
        return {"status": "success", "data": {"resultType": "vector", "result": []}}

    query_range = query


@pytest.fixture(autouse=True)
def _beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beyond the API answers at once: agents, Redis for secrets, the metric store."""
    answers = {
        "compute.guest_report": {"agent_answers": True, "hostname": "web", "addresses": ["10.0.0.1"], "os": "Debian"},
        "network.probe_address": {"macs": []},
    }
    monkeypatch.setattr(agents, "ask", lambda agent, message, timeout=5.0: answers[message.kind])
    monkeypatch.setattr(secrets, "keep", lambda document: "secret-id")
    monkeypatch.setattr(queries, "_store", lambda url: NoStore())


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Requests are part of the test's transaction, so they must not close its connection."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def everything(db: None) -> Everything:
    return populate()


@pytest.fixture
def token(db: None) -> str:
    """The administrator's."""
    return token_of(bootstrap.ensure_admin())


@contextmanager
def undone() -> Iterator[None]:
    """What happens in the block did not happen."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def realistic(value: Any, made: Everything, name: str = "") -> Any:
    """The value with references to what is there, where it has references to anything."""
    if isinstance(value, dict):
        return {key: realistic(inner, made, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [realistic(inner, made, name) for inner in value]
    reference = made.reference(name)
    return reference if reference and isinstance(value, str) else value


def send(case: Any, made: Everything, token: str, *, is_real: bool, application: Any) -> Any:
    if is_real:
        prefix = case.operation.path.removeprefix("/api/v1/").partition("/")[0]
        for name in case.path_parameters or {}:
            case.path_parameters[name] = made.key(prefix)
        if isinstance(case.body, (dict, list)):
            case.body = realistic(case.body, made)
    with undone():
        config.forget()
        return case.call(app=application, headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str, everything: Everything, token: str) -> None:
    application = get_wsgi_application()
    operation = OPERATIONS[name]
    quick = {
        "derandomize": True,
        "database": None,
        "deadline": None,
        "suppress_health_check": list(HealthCheck),
        "print_blob": False,
    }

    @settings(max_examples=GOOD, **quick)
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        is_real=st.sampled_from([True, True, False]),
    )
    def good(case: Any, is_real: bool) -> None:
        response = send(case, everything, token, is_real=is_real, application=application)
        case.validate_response(response, checks=CHECKS)
        expect_a_problem(response)

    @settings(max_examples=BAD, **quick)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def bad(case: Any) -> None:
        response = send(case, everything, token, is_real=False, application=application)
        case.validate_response(response, checks=[*CHECKS, negative_data_rejection])
        expect_a_problem(response)

    good()
    if operation.body or operation.query or operation.path_parameters:
        bad()


def expect_a_problem(response: Any) -> None:
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"], response.headers
        assert response.json()["code"]
