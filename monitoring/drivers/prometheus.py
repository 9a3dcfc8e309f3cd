"""A metric store, spoken to in Prometheus' HTTP protocol.

https://prometheus.io/docs/prometheus/latest/querying/api/ and, for `extra_filters[]`,
https://docs.victoriametrics.com/#prometheus-querying-api-enhancements
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from cloud.common.driver import Rejected, Transient

TIMEOUT_S = 15.0
LARGEST_ANSWER_BYTES = 32 * 1024 * 1024
Answer = dict[str, Any]


class PrometheusStore:
    """One store at a base address; safe to share between threads.

    Every method raises Rejected when the store refuses the query (its words are the detail) or the answer is too large,
    and Transient when the store does not answer or is itself at fault.
    """

    def __init__(self, base_url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._client = httpx.Client(
            timeout=httpx.Timeout(TIMEOUT_S, connect=3.0),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
            transport=transport,
            trust_env=False,
        )

    def query(self, query: str, *, time: float, only: str = "") -> Answer:
        """The value at a time (Unix seconds). `only` is a selector, as `{project="…"}`, that each series must match."""
        return self._ask("/api/v1/query", {"query": query, "time": _number(time)}, only)

    def query_range(self, query: str, *, start: float, end: float, step_s: float, only: str = "") -> Answer:
        """The values from `start` to `end` (Unix seconds), one each `step_s`; `only` as for `query`."""
        span = {"query": query, "start": _number(start), "end": _number(end), "step": _number(step_s)}
        return self._ask("/api/v1/query_range", span, only)

    def _ask(self, path: str, parameters: Mapping[str, str], only: str) -> Answer:
        form = {**parameters, "timeout": f"{TIMEOUT_S - 2:.0f}s", **({"extra_filters[]": only} if only else {})}
        try:
            # As a form: a query may be longer than an address.
            with self._client.stream("POST", self.base_url + path, data=form) as response:
                status, raw = response.status_code, _read(response)
        except httpx.HTTPError as error:
            raise Transient("store_unreachable", f"The metric store does not answer: {error!r}") from error
        document = _decoded(raw)
        if document.get("status") == "success" and status == 200:
            return document
        said = str(document.get("error") or raw[:300].decode(errors="replace")).strip()
        if status in (400, 422):
            raise Rejected("bad_query", said)
        raise Transient("store_failed", f"The metric store answered {status}: {said}")


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _read(response: httpx.Response) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > LARGEST_ANSWER_BYTES:
            raise Rejected("too_much_data", "The answer is larger than 32 MiB.")
        parts.append(part)
    return b"".join(parts)


def _decoded(raw: bytes) -> Answer:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
