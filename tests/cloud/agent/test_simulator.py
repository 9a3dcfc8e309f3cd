"""Many agents in one process, spoken to as control speaks to any: by Celery on a real Redis."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import redis

from cloud.agent.simulator.config import save
from cloud.common import tickets
from cloud.common.wire import Desired
from cloud.infra import simulation
from cloud.infra.drivers import redis_acl
from compute.messages import DomainInventory, Domains, DomainSpec, StartDomain
from storage.messages import (
    CacheImages,
    CreateVolumes,
    DownloadImage,
    ImageOrigin,
    NewVolume,
    StoragePlace,
)
from tests.cloud.agent.test_agent import ROOT, Control
from tests.cloud.agent.waiting import wait_until

PASSWORD = "simulator-password"
PRIMARY = StoragePlace("0b7d8f5e-3c55-4b0c-8c51-6a8e0f7f9f01", "local", "/srv/simulated/primary")
IMAGES = StoragePlace("0b7d8f5e-3c55-4b0c-8c51-6a8e0f7f9f02", "imagestore", "/srv/simulated/images")


class Everybody(Control):
    """Control as all agents hear it: nothing that one says is thrown away for another."""

    def of(self, agent):
        """This control, looking at one agent."""
        self.agent = agent
        return self

    def listen(self):
        with self.app.connection_for_read() as connection, connection.SimpleQueue("control.answers") as queue:
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return [(task, said) for task, said in self.heard if said["agent"] == self.agent]
                self.heard.append((message.headers["task"], message.payload[1]["document"]))
                message.ack()

    def count(self, task):
        return sum(name == task for name, _ in self.listen())


class Simulated:
    """The simulator's process and its directory."""

    def __init__(self, directory: Path, document):
        self.directory, self.document = directory, document
        self.log = directory / "simulator.log"
        self.process = None

    def have(self, *machines):
        self.document["machines"] = list(machines)
        save(self.directory / "simulator.json", self.document)

    def suffer(self, **faults):
        declared = {name: {"words": words.split(), "at": time.time()} for name, words in faults.items()}
        save(self.directory / "faults.json", declared)

    def start(self):
        with self.log.open("a") as log:
            words = [sys.executable, "-m", "cloud.agent.main", "simulate", "--directory", str(self.directory)]
            self.process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


@pytest.fixture
def hosts():
    return [
        {"uuid": str(simulation.new_uuid()), "name": f"sim-{n}", "address": f"198.18.0.{n}", "role": "host"}
        for n in (1, 2, 3)
    ]


@pytest.fixture
def server():
    return {"uuid": str(simulation.new_uuid()), "name": "sim-images", "address": "198.18.0.9", "role": "image_server"}


@pytest.fixture
def simulated(redis_server, pki_dir, tmp_path, hosts, server):
    simulation.grant(redis_server.client(), hashlib.sha256(PASSWORD.encode()).hexdigest())
    made = Simulated(
        tmp_path,
        {
            "redis_url": f"unix://{redis_server.socket}",
            "redis_username": redis_acl.user_name(simulation.PATTERN),
            "redis_password": PASSWORD,
            "ticket_key": (pki_dir / "ticket.pub").read_text().strip(),
        },
    )
    made.have(*hosts[:2], server)
    made.start()
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    print(made.log.read_text())


@pytest.fixture
def control(redis_server, simulated):
    return Everybody(redis_server, "")


def started(make_command, **changes):
    spec = DomainSpec(str(uuid.uuid4()), "web", 1, 1 << 20)
    body = StartDomain(spec).to_document()
    return make_command(StartDomain.kind, job=str(uuid.uuid4()), resource=spec.uuid, body=body, **changes), spec.uuid


def domains(control, agent):
    answer = control.of(agent).ask(Domains.kind, Domains().to_document())
    return {each.uuid: each.state for each in DomainInventory.from_document(answer["body"]).domains}


def answered(control, agent, command, deadline_s=10):
    return control.of(agent).wait_for("jobs.answer", deadline_s, key=command.key)


def test_every_machine_says_hello_lives_and_does_its_own_work(control, hosts, make_command):
    for host in hosts[:2]:
        hello = control.of(host["uuid"]).wait_for("infra.agent_hello")
        assert hello["facts"]["hostname"] == host["name"]
        assert hello["facts"]["nics"][0]["addresses"] == [f"{host['address']}/15"]
        assert wait_until(control.alive)["boot_id"] == hello["boot_id"]
    one, other = hosts[0]["uuid"], hosts[1]["uuid"]
    command, domain = started(make_command)
    control.of(one).send("command", command)
    assert answered(control, one, command)["failure"] is None
    assert domains(control, one) == {domain: "running"}
    assert domains(control, other) == {}
    control.of(one).send("command", command)
    wait_until(lambda: control.of(one).count("jobs.answer") == 2)
    assert domains(control, one) == {domain: "running"}


def test_desired_state_is_held_by_each(control, hosts):
    body = {"bridges": []}
    for number, host in enumerate(hosts[:2], start=7):
        control.of(host["uuid"]).send("desired", Desired(host["uuid"], "networks", number, body))
    for number, host in enumerate(hosts[:2], start=7):
        assert control.of(host["uuid"]).wait_for("infra.desired_held", section="networks")["number"] == number


def test_machines_come_and_go_while_it_runs(simulated, control, hosts, make_command):
    control.of(hosts[0]["uuid"]).wait_for("infra.agent_hello")
    command, domain = started(make_command)
    control.of(hosts[0]["uuid"]).send("command", command)
    answered(control, hosts[0]["uuid"], command)
    simulated.have(hosts[0], hosts[2])
    control.of(hosts[2]["uuid"]).wait_for("infra.agent_hello")
    assert domains(control, hosts[0]["uuid"]) == {domain: "running"}
    with pytest.raises(AssertionError, match="nobody answered"):
        control.of(hosts[1]["uuid"]).ask(Domains.kind, Domains().to_document(), timeout=1)


def test_images_go_from_neighbour_to_neighbour_and_disks_outlive_the_process(
    simulated, control, hosts, server, pki_dir, make_command
):
    host, images = hosts[0]["uuid"], server["uuid"]
    before = control.of(host).wait_for("infra.agent_hello")["boot_id"]
    image, volume = str(uuid.uuid4()), str(uuid.uuid4())
    order = DownloadImage(image, IMAGES, "http://images.simulated.invalid/a", "root_template", 1 << 20, 0, [])
    download = make_command(DownloadImage.kind, job="j1", resource=image, body=order.to_document())
    control.of(images).send("command", download, is_bulk=True)
    report = answered(control, images, download)["body"]
    params = {"storage": vars(IMAGES), "image": image}
    key = tickets.load_signing_key(pki_dir / "ticket.key")
    ticket = tickets.sign(key, agent=images, verb="storage.image_read", resource=image, params=params, ttl_s=60)
    origin = ImageOrigin(
        image, PRIMARY, report["actual_size_bytes"], report["content_sha256"], server["address"], 7443, ticket
    )
    cache = make_command(CacheImages.kind, job="j2", resource=volume, body=CacheImages([origin]).to_document())
    control.of(host).send("command", cache, is_bulk=True)
    assert answered(control, host, cache)["failure"] is None
    assert simulated.stop() == 0
    simulated.start()
    wait_until(lambda: control.of(host).alive() and control.alive()["boot_id"] != before, 15)
    create = CreateVolumes([NewVolume(volume, PRIMARY, 1 << 20, image)])
    made = make_command(CreateVolumes.kind, job="j3", resource=volume, body=create.to_document())
    control.of(host).send("command", made)
    assert answered(control, host, made)["failure"] is None


def test_it_fails_as_told_and_others_do_not(simulated, control, hosts, make_command):
    simulated.suffer(**{"sim-1": "fail=1 nature=rejected"})
    first, second = hosts[0]["uuid"], hosts[1]["uuid"]

    def failure_of(agent):
        command, _ = started(make_command)
        control.of(agent).send("command", command)
        return answered(control, agent, command)["failure"]

    failed = wait_until(lambda: failure_of(first))
    assert (failed["nature"], failed["code"]) == ("rejected", "simulated_fault")
    assert failure_of(second) is None
    simulated.suffer(all="fail=1")
    assert wait_until(lambda: failure_of(second))["nature"] == "transient"
    simulated.suffer()
    wait_until(lambda: failure_of(first) is None)


def test_a_lost_answer_is_given_when_it_is_asked_for_again(simulated, control, hosts, make_command):
    agent = hosts[0]["uuid"]
    simulated.suffer(all="lose=1")
    control.of(agent).wait_for("infra.agent_hello")

    def is_lost():
        command, domain = started(make_command)
        control.of(agent).send("command", command)
        wait_until(lambda: domains(control, agent).get(domain) == "running")
        wait_until(lambda: command.key not in (control.of(agent).alive() or {"in_work": [command.key]})["in_work"])
        return None if any(said.get("key") == command.key for _, said in control.listen()) else command

    command = wait_until(is_lost, 20)
    simulated.suffer()

    def is_answered():
        control.of(agent).send("command", command)
        return any(said.get("key") == command.key for _, said in control.of(agent).listen())

    wait_until(is_answered)


def test_a_silent_machine_neither_hears_nor_speaks(simulated, control, hosts, make_command):
    agent = hosts[0]["uuid"]
    control.of(agent).wait_for("infra.agent_hello")
    wait_until(control.of(agent).alive)
    simulated.suffer(**{"sim-1": "silent"})
    # Two beats are left out: it was not seen for longer than the three seconds between them.
    wait_until(lambda: control.redis.pttl(f"mica:agent:{agent}:alive") < 10_000, 15)
    command, domain = started(make_command)
    control.of(agent).send("command", command)
    wait_until(lambda: control.redis.llen(f"agent.{agent}") == 0)
    hellos = control.count("infra.agent_hello")
    simulated.suffer()
    wait_until(lambda: control.of(agent).count("infra.agent_hello") == hellos + 1)
    assert domain not in domains(control, agent)


def test_a_machine_that_dies_is_born_anew_with_nothing_in_memory(simulated, control, hosts, make_command):
    agent = hosts[0]["uuid"]
    before = control.of(agent).wait_for("infra.agent_hello")
    command, _ = started(make_command)
    control.of(agent).send("command", command)
    answered(control, agent, command)
    simulated.suffer(**{"sim-1": "die=200ms"})
    wait_until(lambda: control.of(agent).count("infra.agent_hello") == 2)
    after = control.listen()[-1][1] if control.listen()[-1][0] == "infra.agent_hello" else None
    hellos = [said for task, said in control.listen() if task == "infra.agent_hello"]
    assert after is None or after == hellos[-1]
    assert hellos[-1]["boot_id"] != before["boot_id"]
    assert domains(control, agent) == {}


def test_its_user_touches_only_what_is_simulated(redis_server, simulated):
    client = redis.Redis(
        unix_socket_path=str(redis_server.socket), username=redis_acl.user_name(simulation.PATTERN), password=PASSWORD
    )
    mine = simulation.new_uuid()
    client.set(f"mica:agent:{mine}:alive", "{}")
    for act in (
        lambda: client.set(f"mica:agent:{uuid.uuid4()}:alive", "{}"),
        lambda: client.brpop([f"agent.{uuid.uuid4()}"], timeout=1),
        lambda: client.rpop("control.answers"),
        lambda: client.flushall(),
    ):
        with pytest.raises(redis.ResponseError):
            act()


def test_access_is_renewed_by_the_row_and_taken_away(redis_server):
    client = redis_server.client()
    simulation.grant(client, hashlib.sha256(b"x").hexdigest())
    assert redis_acl.user_name(simulation.PATTERN) in redis_acl.users(client)
    simulation.revoke(client)
    assert redis_acl.user_name(simulation.PATTERN) not in redis_acl.users(client)


def test_uuids_are_version_4_and_known():
    made = simulation.new_uuid()
    assert made.version == 4
    assert str(made).startswith(simulation.PREFIX)
    assert json.dumps(str(made))
