"""The agent as a process, spoken to as control does: by Celery on a real Redis over TLS, with an agent's rights."""

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
from celery import Celery

from cloud.agent.link import client
from cloud.common import signing
from cloud.common.wire import Desired, Query
from cloud.infra import tasks as _said_by_agents  # noqa: F401 - a guarded broker lets through what is registered
from cloud.jobs import tasks as _answers  # noqa: F401
from tests.cloud.agent.conftest import PASSWORD
from tests.cloud.agent.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
RUNNER = Path(__file__).with_name("run_agent.py")


class Control:
    """Control's end: sends documents to the agent's queues, keeps what comes on its own."""

    def __init__(self, server, agent):
        self.redis, self.agent = server.client(), agent
        self.app = Celery(set_as_current=False)
        self.app.conf.update(
            broker_url=f"redis+socket://{server.socket}",
            broker_transport_options={"priority_steps": [0]},
            task_ignore_result=True,
        )
        self.heard = []

    def send(self, kind, message, *, is_bulk=False):
        queue = f"agent.{self.agent}.bulk" if is_bulk else f"agent.{self.agent}"
        self.app.send_task(f"agent.{kind}", kwargs={"document": message.to_document()}, queue=queue, expires=60)

    def listen(self):
        """(task, document) pairs of this agent that have come by now, read as a worker would."""
        with self.app.connection_for_read() as connection, connection.SimpleQueue("control.answers") as queue:
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return self.heard
                document = message.payload[1]["document"]
                if document["agent"] == self.agent:
                    name, signature = message.headers["task"], message.payload[1]["signature"]
                    assert signing.is_genuine([signing.password_hash(PASSWORD)], name, document, signature)
                    self.heard.append((message.headers["task"], document))
                message.ack()

    def wait_for(self, task, deadline_s=10, **expected):
        def found():
            for name, document in self.listen():
                if name == task and all(document.get(k) == v for k, v in expected.items()):
                    return document
            return None

        return wait_until(found, deadline_s)

    def alive(self):
        text = self.redis.get(f"mica:agent:{self.agent}:alive")
        return json.loads(text) if text else None

    def ask(self, task, body, timeout=5):
        query = Query(f"{self.agent}:{uuid.uuid4()}", task, body, time.time() + timeout)
        self.send("query", query)
        answer = self.redis.blpop([f"mica:answer:{query.id}"], timeout=timeout)
        assert answer is not None, "nobody answered"
        return json.loads(answer[1])


class Process:
    def __init__(self, config, state):
        self.config, self.state = config, state
        self.log = state / "agent.log"
        self.process = None

    def start(self):
        self.state.mkdir(exist_ok=True)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=log,
                stdout=log,
            )

    def command(self):
        return [sys.executable, str(RUNNER), str(self.config.directory), str(self.state), str(self.state / "run")]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


@pytest.fixture
def control(redis_server, agent_uuid):
    return Control(redis_server, agent_uuid)


@pytest.fixture
def process(linked, tmp_path):
    made = Process(linked, tmp_path / "state")
    made.start()
    yield made
    if made.process.poll() is None:
        made.kill()
    print(made.log.read_text())


def marks(process, name):
    path = process.state / "world" / name
    return path.read_text().split() if path.exists() else []


def test_says_hello_with_facts(process, control):
    hello = control.wait_for("infra.agent_hello")
    assert hello["boot_id"]
    assert hello["facts"]["cpu_threads"] >= 1
    assert hello["facts"]["memory_bytes"] > 1 << 20
    assert hello["facts"]["is_test"]
    assert {"python", "test"} <= set(hello["facts"]["versions"])
    assert abs(hello["facts"]["clock_skew_s"]) < 1


def test_command_is_answered_and_answered_again(process, control, make_command):
    command = make_command("test.mark", body={"name": "a"})
    control.send("command", command)
    answer = control.wait_for("jobs.answer", key=command.key)
    assert (answer["body"], answer["failure"]) == ({"names": ["a"]}, None)
    control.heard.clear()
    control.send("command", command)
    assert control.wait_for("jobs.answer", key=command.key)["body"] == {"names": ["a"]}
    assert marks(process, "a") == ["began", "ended"]


def test_quick_command_passes_bulk_ones(process, control, make_command):
    for number in range(6):
        long = make_command(
            "test.long", job=f"l{number}", resource=f"l{number}", body={"name": f"l{number}", "seconds": 30}
        )
        control.send("command", long, is_bulk=True)
    wait_until(lambda: len(list((process.state / "world").glob("l*"))) >= 4, 10)
    quick = make_command("test.mark", job="q", resource="q", body={"name": "q"})
    control.send("command", quick)
    assert control.wait_for("jobs.answer", 3, key=quick.key)["failure"] is None


def test_one_resource_is_worked_on_in_order_across_both_queues(process, control, make_command):
    """A quick command behind a bulk one of its own resource waits for it, and holds up nobody else's."""
    long = make_command("test.long", job="1", sequence=1, resource="r", body={"name": "long", "seconds": 3})
    quick = make_command("test.mark", job="2", sequence=2, resource="r", body={"name": "quick"})
    other = make_command("test.mark", job="3", sequence=3, resource="other", body={"name": "other"})
    control.send("command", long, is_bulk=True)
    wait_until(lambda: marks(process, "long") == ["began"], 10)
    control.send("command", quick)
    control.send("command", other)
    assert control.wait_for("jobs.answer", key=other.key)["failure"] is None
    assert (marks(process, "long"), marks(process, "quick")) == (["began"], [])
    assert control.wait_for("jobs.answer", key=quick.key)["failure"] is None
    answered = [document["key"] for task, document in control.heard if task == "jobs.answer"]
    assert answered == [other.key, long.key, quick.key]


def test_heartbeat_lists_work_and_progress_is_shown_and_abort_is_heard(process, control, make_command):
    command = make_command("test.long", body={"name": "a", "seconds": 30})
    control.send("command", command, is_bulk=True)
    wait_until(lambda: command.key in (control.alive() or {}).get("in_work", []), 10)
    assert abs(control.alive()["at"] - time.time()) < 5
    progress = json.loads(wait_until(lambda: control.redis.hget(f"mica:progress:{control.agent}", command.key)))
    assert progress["text"] == "marking"
    assert progress["bytes_total"] == 30
    control.redis.set(f"mica:abort:{control.agent}:{command.key}", 1, ex=60)
    assert control.wait_for("jobs.answer", key=command.key)["failure"]["nature"] == "aborted"
    wait_until(lambda: not control.redis.hexists(f"mica:progress:{control.agent}", command.key))


def test_query_is_answered(process, control, make_command):
    control.wait_for("infra.agent_hello")
    assert control.ask("test.marks", {"names": []})["body"] == {"names": []}
    assert control.ask("test.marks", {"names": ["a"]})["failure"]["code"] == "no_names"
    assert control.ask("test.unheard_of", {})["failure"]["code"] == "unknown_query"
    assert control.ask("test.marks", {"wrong": 1})["failure"] is not None


def test_nothing_that_control_cannot_keep_is_told(process, control, agent_uuid, make_command):
    control.send("desired", Desired(agent_uuid, "networks", 7, {"name": "a\0\ud800"}))
    assert control.wait_for("infra.observed", topic="test.networks")["body"] == {"name": "a\ufffd\ufffd"}
    command = make_command("test.un\0heard\udfff", body={})
    control.send("command", command)
    assert "test.un\ufffdheard\ufffd" in control.wait_for("jobs.answer", key=command.key)["failure"]["detail"]
    assert "test.\ufffd;" in control.ask("test.\0", {})["failure"]["detail"]


def test_desired_state_is_held_and_observed(process, control, agent_uuid):
    control.send("desired", Desired(agent_uuid, "networks", 7, {"bridges": []}))
    assert control.wait_for("infra.desired_held", number=7)["failure"] is None
    observed = control.wait_for("infra.observed", topic="test.networks")
    assert observed["body"] == {"bridges": []}
    wait_until(lambda: (control.alive() or {}).get("held") == {"networks": 7}, 10)


def test_killed_in_mid_command_it_works_on_the_same_key_again(process, control, make_command):
    control.wait_for("infra.agent_hello")
    command = make_command("test.mark", body={"name": "a", "seconds": 2})
    control.send("command", command)
    wait_until(lambda: marks(process, "a") == ["began"], 10)
    boot_id = wait_until(control.alive)["boot_id"]
    process.kill()
    process.start()
    wait_until(lambda: len([1 for task, _ in control.listen() if task == "infra.agent_hello"]) == 2, 10)
    control.send("command", command)
    assert control.wait_for("jobs.answer", key=command.key)["failure"] is None
    assert marks(process, "a") == ["began", "began", "ended"]
    assert control.alive()["boot_id"] == boot_id


def test_killed_agent_answers_finished_keys_and_refuses_late_ones(process, control, make_command):
    newer = make_command("test.mark", job="j2", sequence=2, body={"name": "a"})
    older = make_command("test.mark", job="j1", sequence=1, body={"name": "b"})
    control.send("command", newer)
    control.wait_for("jobs.answer", key=newer.key)
    control.heard.clear()
    process.kill()
    process.start()
    control.send("command", newer)
    control.send("command", older)
    assert control.wait_for("jobs.answer", key=newer.key)["failure"] is None
    assert control.wait_for("jobs.answer", key=older.key)["failure"]["code"] == "refused_late"
    assert (marks(process, "a"), marks(process, "b")) == (["began", "ended"], [])


def test_bad_documents_do_not_stop_it(process, control, make_command):
    for document in ({}, {"key": "x"}, [], "text", {"key": "k", "deadline": None}):
        control.app.send_task("agent.command", kwargs={"document": document}, queue=f"agent.{control.agent}")
    control.app.send_task("agent.unheard_of", kwargs={}, queue=f"agent.{control.agent}")
    control.app.send_task("agent.command", args=[1, 2, 3], queue=f"agent.{control.agent}")
    control.redis.lpush(f"agent.{control.agent}", "this is no message")
    command = make_command("test.mark", body={"name": "a"})
    control.send("command", command)
    assert control.wait_for("jobs.answer", 15, key=command.key)["failure"] is None


def test_sample_is_shown(process, control):
    sample = json.loads(wait_until(lambda: control.redis.get(f"mica:agent:{control.agent}:sample"), 15))
    assert sample["host"]["memory_total_bytes"] > 0
    assert sample["instances"] == {"i-1": {"cpu_used_percent": 1.5}}


def test_told_to_stop_it_ends_soon_and_takes_its_sign_of_life_away(process, control, make_command):
    wait_until(control.alive, 10)
    long = make_command("test.long", body={"name": "a", "seconds": 60})
    control.send("command", long, is_bulk=True)
    wait_until(lambda: marks(process, "a"), 10)
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 8
    assert control.alive() is None


@pytest.mark.chaos
def test_redis_lost_and_back_empty(process, control, redis_server, linked, agent_uuid, make_command):
    control.wait_for("infra.agent_hello")
    before = make_command("test.mark", body={"name": "a", "seconds": 3})
    control.send("command", before)
    wait_until(lambda: marks(process, "a") == ["began"])
    redis_server.stop()
    wait_until(lambda: marks(process, "a") == ["began", "ended"], 10)
    redis_server.start()
    control.heard.clear()
    assert control.wait_for("jobs.answer", 20, key=before.key)["failure"] is None
    control.wait_for("infra.agent_hello", 20)
    after = make_command("test.mark", step="1", body={"name": "b"})
    control.send("command", after)
    assert control.wait_for("jobs.answer", 20, key=after.key)["failure"] is None
    wait_until(control.alive, 10)


def test_agent_may_touch_nothing_but_its_own(linked, redis_server):
    own = client(linked)
    other = str(uuid.uuid4())
    for forbidden in (
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["KEYS", "*"],
        ["GET", f"mica:agent:{other}:alive"],
        ["LRANGE", f"agent.{other}", "0", "-1"],
        ["BRPOP", "control.answers", "1"],
        ["SET", f"mica:abort:{other}", "1"],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            own.execute_command(*forbidden)
