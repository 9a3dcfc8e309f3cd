"""`resume`: a worker is killed with jobs in flight; how long until the last of them has gone on."""

from __future__ import annotations

import os
import signal
import time
import uuid
from typing import Any

from launcher.bench.api import ENDED, Api
from launcher.bench.figures import Figure
from launcher.bench.run import Run
from launcher.errors import Refusal

BAR_S = 20.0
INSTANCES = 12
ROUNDS, QUICK_ROUNDS = 4, 1
# Moments of the kill after the request was answered: while jobs are taken up, at work, waiting for machines.
KILL_AFTER_S = (0.3, 0.1, 0.6, 1.0)
PATIENCE_S, LOOK_EVERY_S = 90, 0.25


def measure(run: Run) -> list[Figure]:
    """The longest that a job stood still, over several kills."""
    api = run.api()
    body = {
        "image": api.named("images", "mica-guest")["uuid"],
        "instance_offering": api.named("instance-offerings", "tiny")["uuid"],
        "nics": [{"l3_network": api.named("l3-networks", "private")["uuid"]}],
        "strategy": "create_only",
        "count": INSTANCES,
    }
    longest, in_flight = 0.0, 0
    for number in range(QUICK_ROUNDS if run.is_quick else ROUNDS):
        seconds, jobs = _round(run, api, body, KILL_AFTER_S[number])
        run.say(f"resume: round {number + 1}: {jobs} jobs in flight, the last went on after {seconds:.1f} s")
        longest, in_flight = max(longest, seconds), in_flight + jobs
    if not in_flight:
        raise Refusal("No job was in flight when the worker was killed", "Try again on a less busy machine.")
    return [Figure("resume", longest, "s", BAR_S, note=f"{in_flight} jobs in flight at kill -9 of the worker")]


def _round(run: Run, api: Api, body: dict[str, Any], kill_after_s: float) -> tuple[float, int]:
    accepted = api.post("/api/v1/instances/", {**body, "name": f"bench-{uuid.uuid4().hex[:6]}" + "-{n}"})
    made = [row["url"] for row in accepted["results"]]
    try:
        time.sleep(kill_after_s)  # the moment of the kill is what differs between rounds
        pid = run.cloud.pid("worker")
        if pid is None:
            raise Refusal("There is no worker to kill", "./mica up")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        # Only what is seen afterwards stands still for certain.
        standing = {url: seen for url, seen in _jobs(api, accepted["job"]).items() if seen[0] not in ENDED}
        jobs = len(standing)
        while standing:
            now = _jobs(api, accepted["job"])
            moved = [url for url, seen in standing.items() if now.get(url) != seen]
            standing = {url: seen for url, seen in standing.items() if url not in moved}
            seconds = time.monotonic() - killed
            if seconds > PATIENCE_S:
                raise Refusal(f"{len(standing)} jobs did not go on within {PATIENCE_S} s", "See the worker's log.")
            if standing:
                time.sleep(LOOK_EVERY_S)
        last = time.monotonic() - killed if jobs else 0.0
        api.ended(accepted["job"], PATIENCE_S)
        return last, jobs
    finally:
        for url in made:
            api.remove(url)


def _jobs(api: Api, parent: str) -> dict[str, tuple[Any, ...]]:
    """What can be seen of each child's progress, by its address."""
    found = api.get("/api/v1/jobs/", parent=parent.rstrip("/").rpartition("/")[2], limit=500)["results"]
    return {job["url"]: (job["state"], job["percent"], job["step"], job["finished_at"]) for job in found}
