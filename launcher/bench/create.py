"""`create`: from the API's create to the running instance, against plain libvirt making the same domain.

Both on host-1 of the lab, turn by turn, with the image already on the host. The plain one takes the XML of the domain
that the platform made, with files and names of its own; it makes the same overlay and the same kind of seed, defines
and starts, over a connection that is open before.
"""

from __future__ import annotations

import json
import time
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.bench.api import Api
from launcher.bench.figures import Figure, median
from launcher.bench.run import Run
from launcher.errors import Refusal
from launcher.lab.machine import Machine
from launcher.process import wait_until

HOST = "host-1"
ROUNDS, QUICK_ROUNDS = 9, 3
FACTOR, EXTRA_S = 1.2, 0.5
JOB_DEADLINE_S, GUEST_DEADLINE_S = 180, 120
PLAIN = Path(__file__).with_name("plain_libvirt.py")


def measure(run: Run) -> list[Figure]:
    """The medians of both. An instance made before and running on brings image and network to the host."""
    api, machine = run.api(), run.cloud.machine(HOST)
    body = _body(api)
    anchor = _create(api, body)[1]
    try:
        model = _model(machine, anchor)
        _wait_for_guest(api, anchor)
        ours, plain = [], []
        for number in range(QUICK_ROUNDS if run.is_quick else ROUNDS):
            seconds, made = _create(api, body)
            api.remove(made["url"])
            ours.append(seconds)
            plain.append(_plain(machine, model))
            run.say(f"create: round {number + 1}: {ours[-1]:.2f} s, plain libvirt {plain[-1]:.2f} s")
    finally:
        api.remove(anchor["url"])
    reference = median(plain)
    bar = FACTOR * reference + EXTRA_S
    return [Figure("create", median(ours), "s", bar, reference=reference, note=f"median of {len(ours)} rounds")]


@dataclass(frozen=True)
class Model:
    """A domain to make again: its XML, the image that its root disk stands on, and the disk's size."""

    xml: str
    image: str
    size_bytes: int


def _body(api: Api) -> dict[str, Any]:
    return {
        "image": api.named("images", "mica-guest")["uuid"],
        "instance_offering": api.named("instance-offerings", "tiny")["uuid"],
        "nics": [{"l3_network": api.named("l3-networks", "private")["uuid"]}],
        "host": api.named("hosts", HOST)["uuid"],
    }


def _create(api: Api, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Seconds from the request to the state `running`, by the clock that both share; and the instance."""
    started = time.time()
    accepted = api.post("/api/v1/instances/", {**body, "name": f"bench-{uuid.uuid4().hex[:8]}"})
    made: dict[str, Any] = accepted["results"][0]
    try:
        job = api.ended(accepted["job"], JOB_DEADLINE_S)
        if job["state"] != "succeeded":
            raise Refusal(f"An instance was not created: {job['error']}")
    except BaseException:
        api.remove(made["url"])
        raise
    return datetime.fromisoformat(job["finished_at"]).timestamp() - started, made


def _model(machine: Machine, instance: dict[str, Any]) -> Model:
    xml = _inside(machine, "virsh", "-c", "qemu:///system", "dumpxml", "--inactive", instance["uuid"])
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own words
    disk = next(disk for disk in root.iter("disk") if disk.get("device") == "disk")
    source = disk.find("source")
    path = source.get("file", "") if source is not None else ""
    facts = json.loads(_inside(machine, "qemu-img", "info", "-U", "--output=json", path))
    return Model(xml, facts["full-backing-filename"], facts["virtual-size"])


def _wait_for_guest(api: Api, instance: dict[str, Any]) -> None:
    """Its boot, which keeps a processor busy, shall not count against anybody."""

    def answers() -> bool:
        status, said = api.call("GET", f"{instance['url']}guest/")
        return status == 200 and bool(said["agent_answers"])

    wait_until(answers, GUEST_DEADLINE_S, "The guest answering")


def _plain(machine: Machine, model: Model) -> float:
    """Seconds that plain libvirt takes for such a domain; nothing of it is left."""
    base = json.dumps([model.image, model.size_bytes])
    said = _inside(machine, "/usr/bin/python3", "-I", "-c", PLAIN.read_text(), base, stdin=model.xml)
    return float(json.loads(said)["seconds"])


def _inside(machine: Machine, *command: str, stdin: str | None = None) -> str:
    done = machine.enter(command, stdin=stdin, timeout_s=JOB_DEADLINE_S)
    if done.returncode:
        raise Refusal(f"{command[0]} failed on {machine.name}: {done.stderr.strip()}")
    return done.stdout
