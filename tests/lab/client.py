"""A small client of the API, for tests that use it as a user would."""

import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import httpx

T = TypeVar("T")
ENDED = ("succeeded", "failed", "cancelled", "stuck")


def eventually(look: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of `look`; fails the test when there was none in time."""
    end = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


class Api:
    """JSON by HTTP with a token."""

    def __init__(self, base: str, token: str) -> None:
        self.base, self.token = base, token
        self.http = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, expect: int | None = None, **options: Any) -> Any:
        """One request; `path` is below /api/v1/ or whole. Asserts the status: 2xx, or the one expected."""
        path = path if path.startswith("/") else f"/api/v1/{path}"
        response = self.http.request(method, path, **options)
        good = response.status_code == expect if expect else response.is_success
        assert good, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, params=query)

    def post(self, path: str, body: Any = None, expect: int | None = None) -> Any:
        return self.call("POST", path, expect, json=body if body is not None else {})

    def list(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get(f"{kind}/", limit=500, **query)["results"]
        return rows

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one resource of this kind and name."""
        (found,) = [row for row in self.list(kind, q=name) if row["name"] == name]
        return found

    def job(self, accepted: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
        """Follow a job to its end."""

        def ended() -> Any:
            job = self.get(accepted["job"])
            return job if job["state"] in ENDED else None

        return eventually(ended, seconds, f"the end of {accepted['job']}")

    def done(self, accepted: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
        """Follow a job to its end, which must be a good one."""
        job = self.job(accepted, seconds)
        assert job["state"] == "succeeded", job["error"]
        return job

    def create(self, name: str, **more: Any) -> dict[str, Any]:
        """The answer to a request for a tiny instance on the private network."""
        body = {
            "name": name,
            "image": self.named("images", "mica-guest")["uuid"],
            "instance_offering": self.named("instance-offerings", "tiny")["uuid"],
            "nics": [{"l3_network": self.named("l3-networks", "private")["uuid"]}],
            **more,
        }
        answer: dict[str, Any] = self.post("instances/", body, expect=202)
        return answer

    def running(self, name: str, **more: Any) -> dict[str, Any]:
        """A running instance."""
        accepted = self.create(name, **more)
        self.done(accepted)
        instance: dict[str, Any] = self.get(accepted["results"][0]["url"])
        assert instance["state"] == "running"
        return instance

    def guest(self, instance: dict[str, Any], seconds: float = 90) -> dict[str, Any]:
        """What the guest's agent says, once it answers."""

        def answers() -> Any:
            said = self.http.get(f"/api/v1/instances/{instance['uuid']}/guest/")
            return said.json() if said.is_success and said.json()["agent_answers"] else None

        return eventually(answers, seconds, f"the guest agent of {instance['name']}")

    def expunge(self, instance: dict[str, Any]) -> None:
        """Through the recycle bin and out of it, once whatever works on the instance has ended."""
        path = f"instances/{instance['uuid']}/"

        def idle() -> Any:
            found = self.http.get(f"/api/v1/{path}")
            return found.status_code == 404 or (not found.json()["activity"] and found.json())

        for _ in range(2):
            now = eventually(idle, 120, f"{instance['name']} being idle")
            if now is True:
                return
            if now["state"] == "destroyed":
                self.done(self.post(f"{path}expunge/", expect=202))
            else:
                self.done(self.call("DELETE", path, 202))
