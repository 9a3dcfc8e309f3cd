"""One request through the whole application, without a network: what it costs the server, and its SQL."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.signals import connection_created


@dataclass
class Sample:
    """What one request took: `server_ms` is the processor time of the process and the time of its SQL.

    The time that either stood ready while others had the processor does not count (Linux' run delay): it is what the
    request costs on an idle machine, whoever else is at work on this one. `wall_ms` is what the clock says.
    """

    path: str
    status: int = 0
    body: Any = None
    wall_ms: float = 0
    server_ms: float = 0
    sql_ms: float = 0
    statements: list[tuple[str, Any]] = field(default_factory=list)


class Meter:
    """Sends requests to the ASGI application with a bearer token; a context manager, for it listens to the database."""

    def __init__(self) -> None:
        self._application = get_asgi_application()
        self._runner = asyncio.Runner()
        self._sample = Sample("")
        self._waited_cpu_s = self._waited_s = 0.0

    def __enter__(self) -> Self:
        connection_created.connect(self._listen)
        self._database = type(connections["default"])
        self._connect = self._database.connect
        meter = self

        def timed(database: Any) -> None:
            with meter._waiting(None):
                meter._connect(database)

        self._database.connect = timed  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self._database.connect = self._connect  # type: ignore[method-assign]
        connection_created.disconnect(self._listen)
        self._runner.close()

    def get(self, path: str, token: str) -> Sample:
        """GET the path (with its query) as the token's user."""
        self._sample = Sample(path)
        self._waited_cpu_s = self._waited_s = 0.0
        started, cpu = time.perf_counter(), time.process_time()
        status, content = self._runner.run(self._send(path, token))
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - started
        sample = self._sample
        sample.status, sample.wall_ms = status, wall_s * 1000
        sample.sql_ms = self._waited_s * 1000
        sample.server_ms = (cpu_s - self._waited_cpu_s + self._waited_s) * 1000
        sample.body = json.loads(content)
        return sample

    async def _send(self, path: str, token: str) -> tuple[int, bytes]:
        address = urlsplit(path)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": unquote(address.path),
            "raw_path": address.path.encode(),
            "query_string": address.query.encode(),
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        asked = [{"type": "http.request", "body": b"", "more_body": False}]
        said: list[dict[str, Any]] = []
        ended = asyncio.Event()

        async def receive() -> Any:
            if asked:
                return asked.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            said.append(message)

        try:
            await self._application(scope, receive, send)
        finally:
            ended.set()
        return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])

    def _listen(self, connection: Any, **_: Any) -> None:
        if self._note not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._note)

    def _note(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self._sample.statements.append((sql, params))
        with self._waiting(context["connection"].connection):
            return execute(sql, params, many, context)

    @contextmanager
    def _waiting(self, session: Any) -> Iterator[None]:
        """Count the block as SQL."""
        cpu, watch = time.thread_time(), Stopwatch(session)
        try:
            yield
        finally:
            self._waited_s += watch.seconds()
            self._waited_cpu_s += time.thread_time() - cpu


class Stopwatch:
    """Time of a statement on a psycopg connection, but for what either side waited for a processor that others held.

    Linux tells that in the second number of /proc/<pid>/schedstat, in nanoseconds (Documentation/scheduler/
    sched-stats.rst); a server elsewhere is believed never to wait.
    """

    def __init__(self, session: Any) -> None:
        self._tasks = ["thread-self", *([str(session.info.backend_pid)] if session else [])]
        self._delayed, self._started = self._delay_s(), time.perf_counter()

    def seconds(self) -> float:
        passed = time.perf_counter() - self._started
        return max(0.0, passed - (self._delay_s() - self._delayed))

    def _delay_s(self) -> float:
        total = 0
        for task in self._tasks:
            try:
                total += int(Path("/proc", task, "schedstat").read_text().split()[1])
            except (OSError, IndexError):
                continue
        return total / 1e9
