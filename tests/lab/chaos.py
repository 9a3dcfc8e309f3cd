"""Three acts at once, a process that dies in the midst of them, and what must be true afterwards."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from launcher.cloud import Cloud
from tests.lab.client import Api, eventually
from tests.lab.machines import doctor, domains, inside, is_well, traces

CONTROL = ("web", "worker", "beat", "redis", "postgres")
ON_HOST = {"agent": "agent.pyz", "libvirtd": "libvirtd"}
HOST = "host-1"
# A worker's lease, the sweep, a command sent again, an agent that is missed: each takes its seconds, and they add up.
ENOUGH_S = 150


@dataclass(frozen=True)
class Acts:
    """A create, a stop and a destroy that are under way, each with the state its instance was in."""

    created: dict[str, Any]
    stopped: dict[str, Any]
    destroyed: dict[str, Any]


def answers(api: Api) -> bool:
    try:
        return bool(api.http.get("/api/v1/jobs/?limit=1").is_success)
    except httpx.HTTPError:
        return False


def begin(api: Api, name: str, tidy: list[str]) -> Acts:
    """Two running instances on one host, then a create, a stop and a destroy there at the same time."""
    names = [f"{name}-{part}" for part in ("made", "stopped", "destroyed")]
    tidy += names
    host = api.named("hosts", HOST)["uuid"]
    accepted = [api.create(one, host=host) for one in names[1:]]
    for one in accepted:
        api.done(one)
    stopped, destroyed = (one["results"][0]["url"] for one in accepted)
    return Acts(
        created=api.create(names[0], host=host),
        stopped=api.post(f"{stopped}stop/", {"is_forced": True}, expect=202),
        destroyed=api.call("DELETE", destroyed, 202),
    )


def kill(cloud: Cloud, process: str) -> Callable[[Api], bool]:
    """kill -9 of a process of control or of the host, some moment within a second; what tells that it is back."""
    time.sleep(random.random())
    if process in ON_HOST:
        words = ON_HOST[process]
        inside(cloud, HOST, "pkill", "-9", "-f", words)
        return lambda api: bool(cloud.machine(HOST).enter(["pgrep", "-f", words]).stdout.strip())
    pid = cloud.pid(process)
    assert pid
    os.kill(pid, signal.SIGKILL)
    return lambda api: (cloud.pid(process) or pid) != pid and not cloud.supervisor.missing([process]) and answers(api)


def settle(api: Api, cloud: Cloud, acts: Acts) -> None:
    """Each act has ended well, or it is as if it never was."""
    host = api.named("hosts", HOST)
    eventually(lambda: api.get(host["url"])["connection"] == "connected", ENOUGH_S, "the host is connected")
    settle_create(api, cloud, acts.created)
    for accepted, state in ((acts.stopped, "stopped"), (acts.destroyed, "destroyed")):
        if is_done(api, accepted):
            expect_state(api, accepted, state)
        else:
            expect_truth(api, cloud, accepted)


def expect_truth(api: Api, cloud: Cloud, accepted: dict[str, Any]) -> None:
    """Nobody knows what a host that fell silent had done of it: what is so there is shown."""
    uuid = accepted["results"][0]["uuid"]

    def is_shown() -> bool:
        running = inside(cloud, HOST, "virsh", "-c", "qemu:///system", "list", "--uuid").split()
        found = api.get(accepted["results"][0]["url"])
        return bool(found["state"] == ("running" if uuid in running else "stopped") and not found["activity"])

    eventually(is_shown, ENOUGH_S, "the state is the one on the host")


def settle_create(api: Api, cloud: Cloud, accepted: dict[str, Any]) -> None:
    """The instance runs, or there is nothing of it anywhere."""
    instance = accepted["results"][0]
    if is_done(api, accepted):
        expect_state(api, accepted, "running")
        return
    # What a host that was away owed is done when it is back; the row goes with that.
    eventually(lambda: api.http.get(instance["url"]).status_code == 404, ENOUGH_S, f"{instance['name']} is gone")
    eventually(lambda: not left_of(cloud, instance["uuid"]), ENOUGH_S, "nothing of it is left on the hosts")
    for kind in ("nics", "volumes"):
        assert not [row for row in api.list(kind) if row["instance_uuid"] == instance["uuid"]]


def left_of(cloud: Cloud, uuid: str) -> list[str]:
    hosts = ("host-1", "host-2")
    return [trace for host in hosts for trace in [*traces(cloud, host, uuid), *(domains(cloud, host) & {uuid})]]


def is_done(api: Api, accepted: dict[str, Any]) -> bool:
    job = api.job(accepted, ENOUGH_S)
    assert job["state"] in ("succeeded", "failed"), job
    return bool(job["state"] == "succeeded")


def expect_state(api: Api, accepted: dict[str, Any], state: str) -> None:
    instance = accepted["results"][0]
    eventually(lambda: api.get(instance["url"])["state"] == state, 30, f"{instance['name']} is {state}")


def expect_health(cloud: Cloud) -> None:
    """The doctor finds nothing, once everything has come to rest."""
    end = time.monotonic() + 90
    while not is_well(cloud):
        assert time.monotonic() < end, doctor(cloud)
