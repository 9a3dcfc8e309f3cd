"""Load on a running cloud, by its own API, and what it costs: for measuring, and for proving that nothing is lost.

Everything is made on the simulated hosts (`Cloud.simulate`), from as many clients as wanted, each with a connection of
its own.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.cloud import Cloud
from launcher.control import programs
from launcher.errors import Refusal
from launcher.process import all_pids

SIMULATED = "simulated"
LOOK_EVERY_S = 0.5
PAGE = 500
# Less than uvicorn keeps a connection that is not used.
IDLE_S = 3.0


@dataclass
class Outcome:
    """What became of a load: counts, seconds since its first request, and the uuids of what was made.

    `refused` counts the answers that were no 202, by their code; `left` is how many were not done in time.
    """

    asked: int
    accepted: int = 0
    done: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    accepted_s: float = 0.0
    seconds: float = 0.0
    instances: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        refused = f", refused {dict(self.refused)}" if self.refused else ""
        left = f", {self.left} left" if self.left else ""
        return (
            f"{self.accepted} of {self.asked} accepted in {self.accepted_s:.1f} s, "
            f"{self.done} done in {self.seconds:.1f} s ({self.per_second:.1f}/s){refused}{left}"
        )


class Api:
    """One client of the API, with a connection that stays."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._used_at = time.monotonic()
        self._headers = {"Authorization": f"Bearer {token}", "Host": "localhost", "Content-Type": "application/json"}

    @classmethod
    def of(cls, cloud: Cloud) -> Api:
        """A client with a new token of the administrator."""
        return cls(cloud.instance.port, token(cloud))

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document of one request; `path` is below /api/v1/."""
        data = None if body is None else json.dumps(body).encode()
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()  # the server has hung up by now
        try:
            self._connection.request(method, f"/api/v1/{path}", data, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
            self._used_at = time.monotonic()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, {"code": type(error).__name__}
        return answer.status, json.loads(text) if text else None

    def get(self, path: str) -> Any:
        """A document. Raises Refusal when there is none."""
        status, document = self.call("GET", path)
        if status != 200:
            raise Refusal(f"GET {path}: {status} {document}")
        return document

    def named(self, kind: str, name: str) -> str:
        """The uuid of the one resource with this name. Raises Refusal."""
        found = [row for row in self.get(f"{kind}/?q={name}&limit={PAGE}")["results"] if row["name"] == name]
        if len(found) != 1:
            raise Refusal(f"There are {len(found)} {kind} named {name}", "Run ./mica up --simulate N first.")
        return str(found[0]["uuid"])

    def count(self, path: str) -> int:
        return int(self.get(f"{path}&limit=1")["count"])

    def uuids(self, path: str) -> list[str]:
        """Of every row of a list."""
        found: list[str] = []
        document = self.get(f"{path}&limit={PAGE}")
        while True:
            found += [str(row["uuid"]) for row in document["results"]]
            if not document["next"]:
                return found
            document = self.get(document["next"].partition("/api/v1/")[2])


def token(cloud: Cloud) -> str:
    return cloud.run_manage("token", "admin").strip().splitlines()[-1]


def create(cloud: Cloud, count: int, *, clients: int = 4, each: int = 1, deadline_s: float = 600) -> Outcome:
    """Ask for `count` instances at once from several clients, `each` in a request, until all run or time is over."""
    key = token(cloud)
    api = Api(cloud.instance.port, key)
    zone = api.named("zones", SIMULATED)
    body = {
        "image": api.named("images", SIMULATED),
        "instance_offering": api.named("instance-offerings", "tiny"),
        "nics": [{"l3_network": api.named("l3-networks", SIMULATED)}],
        "zone": zone,
    }
    sizes = [min(each, count - first) for first in range(0, count, each)]
    requests = [("POST", "instances/", {**body, "name": f"load-{n}", "count": size}) for n, size in enumerate(sizes)]
    before = api.count(f"instances/?zone={zone}")
    made = _sent(cloud, key, requests, clients, count)

    def running() -> tuple[int, int]:
        there = api.count(f"instances/?zone={zone}") - before
        return api.count(f"instances/?zone={zone}&state=running") - before, there

    return _awaited(made, running, deadline_s)


def remove(cloud: Cloud, *, clients: int = 4, deadline_s: float = 600) -> Outcome:
    """Destroy and expunge every simulated instance; done are those that are gone."""
    key = token(cloud)
    api = Api(cloud.instance.port, key)
    path = f"instances/?zone={api.named('zones', SIMULATED)}"
    instances = api.uuids(path)
    total = len(instances)
    began = time.monotonic()
    destroyed = _sent(cloud, key, [("DELETE", f"instances/{uuid}/", None) for uuid in instances], clients, total)

    def in_bin() -> tuple[int, int]:
        return api.count(f"{path}&state=destroyed"), api.count(path)

    destroyed = _awaited(destroyed, in_bin, deadline_s)
    expunged = _sent(cloud, key, [("POST", f"instances/{uuid}/expunge/", {}) for uuid in instances], clients, total)
    gone = _awaited(expunged, lambda: (total - api.count(path), total), deadline_s)
    gone.refused += destroyed.refused
    gone.seconds = time.monotonic() - began
    return gone


def ledger(cloud: Cloud) -> list[str]:
    """Every difference between the books and what the simulated hosts hold; only true of a cloud at rest."""
    return [line for line in cloud.run_manage("simulate", "--ledger").splitlines() if line.strip()]


class Usage:
    """Seconds of CPU that each program of the cloud uses from now on."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._began, self._at_first = time.monotonic(), self._read()

    def per_process(self) -> dict[str, float]:
        """Shares of a core since it was made, by program, its children included."""
        seconds = time.monotonic() - self._began
        return {name: round((used - self._at_first.get(name, 0.0)) / seconds, 4) for name, used in self._read().items()}

    def _read(self) -> dict[str, float]:
        parents, used = _processor_times()
        found = {}
        for name in (*programs.ALL, programs.SIMULATOR):
            if root := self._cloud.pid(name):
                found[name] = sum(used[pid] for pid in _tree(root, parents))
        return found


def _sent(cloud: Cloud, key: str, requests: Sequence[tuple[str, str, Any]], clients: int, asked: int) -> Outcome:
    """Send the requests, dealt out to the clients, each one after the other."""
    made = Outcome(asked)
    began = time.monotonic()

    def work(mine: Sequence[tuple[str, str, Any]]) -> list[tuple[int, Any]]:
        api = Api(cloud.instance.port, key)
        return [api.call(*request) for request in mine]

    with ThreadPoolExecutor(clients) as pool:
        answers = [one for some in pool.map(work, [requests[n::clients] for n in range(clients)]) for one in some]
    for status, document in answers:
        if status != 202:
            made.refused[str((document or {}).get("code", status))] += 1
            continue
        results = document.get("results") or [{}]
        made.accepted += len(results)
        made.instances += [str(one["uuid"]) for one in results if "uuid" in one]
    made.accepted_s = time.monotonic() - began
    return made


def _awaited(made: Outcome, look: Callable[[], tuple[int, int]], deadline_s: float) -> Outcome:
    """Wait until as many are done as there are; `look` tells both."""
    began = time.monotonic() - made.accepted_s
    while True:
        made.done, there = look()
        made.seconds = time.monotonic() - began
        made.left = there - made.done
        if made.done >= there or made.seconds > deadline_s:
            return made
        time.sleep(LOOK_EVERY_S)


def _processor_times() -> tuple[dict[int, int], dict[int, float]]:
    """Parent and seconds of CPU of every process, those of ended children included (proc(5), /proc/pid/stat)."""
    tick = os.sysconf("SC_CLK_TCK")
    parents, used = {}, {}
    for pid in all_pids():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[pid] = int(fields[1])
        used[pid] = sum(map(int, fields[11:15])) / tick
    return parents, used


def _tree(root: int, parents: dict[int, int]) -> set[int]:
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found & parents.keys()
