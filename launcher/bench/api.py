"""The API by HTTP, as a program of the standard library uses it."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlencode

from launcher.errors import Refusal

ENDED = ("succeeded", "failed", "cancelled", "stuck")
LOOK_EVERY_S = 0.2


class Api:
    """JSON with a token, one connection kept."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Host": "localhost", "Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document of the answer; `path` is whole. A connection that was closed meanwhile is made anew."""
        content = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            self._connection.close()
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else None

    def get(self, path: str, **query: object) -> Any:
        """The document at a path. Raises Refusal unless it is there."""
        return self._good("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._good("POST", path, body if body is not None else {})

    def delete(self, path: str) -> Any:
        return self._good("DELETE", path)

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The resource of this kind and name. Raises Refusal when there is none."""
        for row in self.get(f"/api/v1/{kind}/", q=name, limit=500)["results"]:
            if row["name"] == name:
                return dict(row)
        raise Refusal(f"The lab has no {name} among its {kind}", "Fill it again: ./mica down --purge && ./mica up")

    def ended(self, job: str, deadline_s: float) -> dict[str, Any]:
        """The job at this address once it has ended. Raises Refusal when the deadline passes."""
        until = time.monotonic() + deadline_s
        while True:
            found: dict[str, Any] = self.get(job)
            if found["state"] in ENDED:
                return found
            if time.monotonic() > until:
                raise Refusal(f"The job {job} did not end within {deadline_s:g} s", "See the worker's log.")
            time.sleep(LOOK_EVERY_S)

    def remove(self, instance: str, deadline_s: float = 180) -> None:
        """Destroy and expunge the instance at this address; gone is fine. Raises Refusal when the deadline passes."""
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            status, found = self.call("GET", instance)
            if status == 404:
                return
            if found["activity"]:
                time.sleep(LOOK_EVERY_S)
                continue
            if found["state"] == "destroyed":
                status, accepted = self.call("POST", f"{instance}expunge/", {})
            else:
                status, accepted = self.call("DELETE", instance)
            if status == 202:
                self.ended(accepted["job"], deadline_s)
        raise Refusal(f"The instance {instance} cannot be removed", "See ./mica status and its jobs.")

    def _good(self, method: str, path: str, body: Any = None) -> Any:
        status, said = self.call(method, path, body)
        if not 200 <= status < 300:
            raise Refusal(f"{method} {path} answers {status}: {said}")
        return said
