"""The API does what its OpenAPI document says, whatever it is sent: made-up requests to every operation, by
schemathesis, against one of everything. Good input and bad input, on rows that are there and on rows that are not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
from tests.storage.conftest import _pki, places  # noqa: F401

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

# What a user would give in fields that hardly any made-up text fits, and fields that a user leaves out.
USUAL: dict[str, Any] = {
    "path": "/srv/other",
    "url": "http://203.0.113.1/other.qcow2",
    "address": "10.77.0.5",
    "ip": "192.168.50.77",
    "start": "192.168.50.90",
    "end": "192.168.50.91",
    "cidr": "10.20.0.0/24",
    "physical_interface": "eth3",
    "dns": "10.0.0.53",
    "domain": "example.org",
    "ssh_password": "a word",
    "ssh_user": "root",
    "ssh_keys": "ssh-ed25519 AAAA me",
    "checksum": "",
    "scope_type": "cluster",
    "value": 60,
    "size_bytes": 1024**3,
    "memory_bytes": 1024**3,
    "cpu": 1,
    "count": 1,
}
LEFT_OUT = {
    *("ssh_private_key", "host_key_fingerprint", "gateway", "routes", "description", "time", "step"),
    *("instance_offering", "root_volume", "data_volumes", "pool", "vni", "vlan_id", "vtep_cidr", "vni_ranges", "mtu"),
}
MADE_UP, REAL, USUALLY = "made up", "of rows that are there", "as users do"

document = SchemaGenerator().get_schema(request=None, public=True)
schema = schemathesis.openapi.from_dict(document)
schema.config.generation.update(with_security_parameters=False)  # who asks is not at stake here
OPERATIONS = {found.ok().definition.raw["operationId"]: found.ok() for found in schema.get_all_operations()}


class NoStore:
    """A metric store that has nothing to tell."""

    def query(self, query: str, **parameters: Any) -> Document:
        return {"status": "success", "data": {"resultType": "vector", "result": []}}

    query_range = query


@pytest.fixture(autouse=True)
def _beyond(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What lies beyond the API answers at once: agents, Redis for secrets, the metric store."""
    request.getfixturevalue("places")
    answers = {
        "compute.guest_report": {"agent_answers": True, "hostname": "web", "addresses": ["10.0.0.1"], "os": "Debian"},
        "compute.domains": {"domains": []},
        "network.probe_address": {"macs": []},
        "infra.inspect": {},
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


@cache
def application() -> Any:
    return get_wsgi_application()


def realistic(value: Any, made: Everything, name: str = "", *, is_usual: bool) -> Any:
    """The value with references to what is there, where it has references to anything."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if not (is_usual and key in LEFT_OUT)}
        return {key: realistic(inner, made, str(key), is_usual=is_usual) for key, inner in kept.items()}
    if isinstance(value, list):
        return [realistic(inner, made, name, is_usual=is_usual) for inner in value]
    if isinstance(value, str) and (reference := made.reference(name)):
        return reference
    return USUAL[name] if is_usual and name in USUAL and value is not None else value


def send(case: Any, made: Everything, token: str, how: str, index: int = 0) -> Any:
    if how != MADE_UP:
        prefix = case.operation.path.removeprefix("/api/v1/").partition("/")[0]
        for name in case.path_parameters or {}:
            case.path_parameters[name] = made.key(prefix, index)
        if isinstance(case.body, (dict, list)):
            case.body = realistic(case.body, made, is_usual=how == USUALLY)
        if isinstance(case.query, dict):
            case.query = realistic(case.query, made, is_usual=how == USUALLY)
    with undone():
        config.forget()
        return case.call(app=application(), headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str, everything: Everything, token: str) -> None:
    ask(OPERATIONS[name], everything, token, good=12, bad=8)


@pytest.mark.full
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_at_length(name: str, everything: Everything, token: str) -> None:
    ask(OPERATIONS[name], everything, token, good=120, bad=80)


def ask(operation: Any, everything: Everything, token: str, *, good: int, bad: int) -> None:
    """Send so many requests that fit the document, and so many that do not; the same ones each time."""
    always = {
        "derandomize": True,
        "database": None,
        "deadline": None,
        "suppress_health_check": list(HealthCheck),
        "print_blob": False,
    }

    @settings(max_examples=good, **always)
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        how=st.sampled_from([USUALLY, REAL, MADE_UP]),
        index=st.integers(0, 3),
    )
    def send_good(case: Any, how: str, index: int) -> None:
        response = send(case, everything, token, how, index)
        case.validate_response(response, checks=CHECKS)
        expect_a_problem(response)

    @settings(max_examples=bad, **always)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def send_bad(case: Any) -> None:
        response = send(case, everything, token, MADE_UP)
        case.validate_response(response, checks=[*CHECKS, negative_data_rejection])
        expect_a_problem(response)

    send_good()
    if operation.body or operation.query or operation.path_parameters:
        send_bad()


def expect_a_problem(response: Any) -> None:
    """What is refused is refused in the one way that the API has, for a reason that programs can read."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"], response.headers
        assert response.json()["code"]
