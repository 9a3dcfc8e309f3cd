"""The store's client: what it asks, and what it makes of answers."""

from collections.abc import Callable
from urllib.parse import parse_qs

import httpx
import pytest

from cloud.common.driver import DriverError, Rejected, Transient
from monitoring.drivers import prometheus
from monitoring.drivers.prometheus import PrometheusStore

GOOD = {"status": "success", "data": {"resultType": "vector", "result": []}}


def store(answer: Callable[[httpx.Request], httpx.Response]) -> PrometheusStore:
    return PrometheusStore("http://store:8428/", transport=httpx.MockTransport(answer))


def test_asks_within_the_scope() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=GOOD)

    assert store(answer).query("up&x=1", time=1700000000.5, only='{project="p"}') == GOOD
    store(answer).query_range("up", start=1, end=61, step_s=10)
    first, second = (parse_qs(request.content.decode()) for request in seen)
    assert first["query"] == ["up&x=1"]
    assert first["time"] == ["1700000000.5"]
    assert first["extra_filters[]"] == ['{project="p"}']
    assert [second[name] for name in ("start", "end", "step")] == [["1"], ["61"], ["10"]]
    assert "extra_filters[]" not in second
    assert [str(request.url) for request in seen] == [
        "http://store:8428/api/v1/query",
        "http://store:8428/api/v1/query_range",
    ]


@pytest.mark.parametrize(
    ("response", "expected", "code"),
    [
        (httpx.Response(422, json={"status": "error", "error": "unparsable"}), Rejected, "bad_query"),
        (httpx.Response(400, text="cannot parse"), Rejected, "bad_query"),
        (httpx.Response(503, text="overloaded"), Transient, "store_failed"),
        (httpx.Response(200, text="<html>"), Transient, "store_failed"),
        (httpx.Response(200, json=[1]), Transient, "store_failed"),
    ],
)
def test_failures_have_a_nature(response: httpx.Response, expected: type[DriverError], code: str) -> None:
    with pytest.raises(expected) as caught:
        store(lambda _request: response).query("up", time=0)
    assert caught.value.code == code


def test_a_silent_store_is_transient() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Transient):
        store(answer).query("up", time=0)


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "LARGEST_ANSWER_BYTES", 100)
    with pytest.raises(Rejected) as caught:
        store(lambda _request: httpx.Response(200, json=["x" * 200])).query("up", time=0)
    assert caught.value.code == "too_much_data"
