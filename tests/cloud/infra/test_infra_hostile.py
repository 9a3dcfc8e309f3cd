"""A machine in the hands of somebody else, on a real Redis with an agent's own rights: it harms nobody but itself."""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Consumer, Queue
from kombu.transport.redis import Transport as PlainTransport

from cloud.celery import app
from cloud.common import signing
from cloud.common.wire import Answer, Held, Hello, Observation
from cloud.events.models import AuditRecord
from cloud.infra import observations, tasks
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, DesiredSection
from cloud.infra.services import flooding
from cloud.jobs import origin
from cloud.jobs.models import Job
from cloud.jobs.tasks import answer
from tests.cloud.infra.test_infra_redis_acl import sign_in
from tests.factories.infra import AgentFactory

pytestmark = pytest.mark.django_db

EVIL, GOOD = "evil-password", "good-password"


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def signed(task: str, document: dict[str, Any], *, agent: str, password: str, at: float | None = None) -> Any:
    moment = time.time() if at is None else at
    return signing.sign(hashed(password), task, document, agent=agent, at=moment)


@pytest.fixture
def evil() -> Agent:
    return AgentFactory(name="evil", redis_password_hash=hashed(EVIL))


@pytest.fixture
def good() -> Agent:
    return AgentFactory(name="good", redis_password_hash=hashed(GOOD))


@pytest.fixture
def hostile(store: Any, evil: Agent, redis_port: int) -> Iterator[Any]:
    redis_acl.grant(store, str(evil.pk), hashed(EVIL))
    client = sign_in(redis_port, str(evil.pk), EVIL)
    yield client
    client.close()


def said_by(agent: Agent) -> list[tuple[Any, str, dict[str, Any]]]:
    """(task, name, document) of everything an agent may say."""
    uuid_ = str(agent.pk)
    return [
        (answer, "jobs.answer", Answer(f"{uuid.uuid4()}:0:run:1", uuid_).to_document()),
        (tasks.agent_hello, "infra.agent_hello", Hello(uuid_, "6.6.6", "boot-2", {}).to_document()),
        (tasks.observed, "infra.observed", Observation(uuid_, "test.hostile", {}, 0.0).to_document()),
        (tasks.desired_held, "infra.desired_held", Held(uuid_, "networks", 7).to_document()),
    ]


SPOKEN = range(4)


class TestNobodySpeaksInAnothersName:
    @pytest.fixture
    def heard(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What came through to those who act on it."""
        from cloud.infra.services import connection, desired
        from cloud.jobs import engine

        came: list[Any] = []
        for module, name in (
            (engine, "answer"),
            (connection, "hello"),
            (observations, "dispatch"),
            (desired, "note"),
        ):
            monkeypatch.setattr(module, name, came.append)
        return came

    @pytest.mark.parametrize("number", SPOKEN)
    def test_its_own_words_are_heard(self, store: Any, good: Agent, heard: list[Any], number: int) -> None:
        task, name, document = said_by(good)[number]
        signature = signed(name, document, agent=str(good.pk), password=GOOD)
        task(document=json.loads(json.dumps(document)), signature=json.loads(json.dumps(signature)))
        assert heard == [document]
        assert not AuditRecord.objects.filter(action="agent.message_refused").exists()

    @pytest.mark.parametrize("number", SPOKEN)
    def test_a_spare_password_is_as_good(self, store: Any, good: Agent, heard: list[Any], number: int) -> None:
        Agent.objects.filter(pk=good.pk).update(spare_password_hashes=[hashed("spare")])
        task, name, document = said_by(good)[number]
        task(document=document, signature=signed(name, document, agent=str(good.pk), password="spare"))
        assert heard == [document]

    @pytest.mark.parametrize("number", SPOKEN)
    @pytest.mark.parametrize(
        "trick", ["unsigned", "own_key", "own_name", "other_task", "changed", "garbled", "revoked", "nobody", "ahead"]
    )
    def test_a_forged_word_is_refused(
        self, store: Any, evil: Agent, good: Agent, heard: list[Any], number: int, trick: str
    ) -> None:
        task, name, document = said_by(good)[number]
        victim = str(good.pk)
        signature: Any = signed(name, document, agent=victim, password=GOOD)
        if trick == "unsigned":
            signature = None
        elif trick == "own_key":
            signature = signed(name, document, agent=victim, password=EVIL)
        elif trick == "own_name":
            signature = signed(name, document, agent=str(evil.pk), password=EVIL)
        elif trick == "other_task":
            signature = signed("infra.other", document, agent=victim, password=GOOD)
        elif trick == "changed":
            document = {**document, "version": "x", "number": 9, "topic": "y", "key": "z"}
        elif trick == "garbled":
            signature = {"agent": victim, "at": "soon", "mac": ["é"]}
        elif trick == "revoked":
            Agent.objects.filter(pk=good.pk).update(redis_password_hash="")
        elif trick == "nobody":
            document = {**document, "agent": victim.upper()}
        elif trick == "ahead":
            signature = signed(name, document, agent=victim, password=GOOD, at=time.time() + 3600)
        task(document=document, signature=signature)
        assert heard == []
        record = AuditRecord.objects.get(action="agent.message_refused")
        assert (record.result, record.detail["task"]) == ("refused", name)

    @pytest.mark.parametrize("number", SPOKEN)
    def test_an_old_word_said_again_is_dropped(self, store: Any, good: Agent, heard: list[Any], number: int) -> None:
        task, name, document = said_by(good)[number]
        old = signed(name, document, agent=str(good.pk), password=GOOD, at=time.time() - 90_000)
        task(document=document, signature=old)
        assert heard == []

    def test_what_is_no_document_is_refused(self, store: Any, heard: list[Any]) -> None:
        for document in (None, [], "x", {}, {"agent": None}, {"agent": ["x"]}, {"agent": "not-a-uuid"}):
            for signature in (None, "x", [], {}, {"agent": None, "at": None, "mac": None}):
                tasks.observed(document=document, signature=signature)
        assert heard == []

    def test_it_cannot_fill_the_events(self, store: Any, evil: Agent, heard: list[Any]) -> None:
        for _ in range(5):
            for claimed in (str(evil.pk), str(uuid.uuid4())):
                tasks.observed(document={"agent": claimed}, signature={})
        names = AuditRecord.objects.filter(action="agent.message_refused").values_list("detail__agent", flat=True)
        assert sorted(names) == sorted([str(evil.pk), origin.UNKNOWN])
        assert store.get(f"mica:refused:{evil.pk}:times") == "5"

    def test_an_answer_for_anothers_job_is_ignored(self, store: Any, evil: Agent, good: Agent) -> None:
        job = Job.objects.create(workflow="test.none", resource_type="infra.Agent", actor_name="x")
        key = f"{job.pk}:0:run:1"
        Job.objects.filter(pk=job.pk).update(waiting={key: {"agent": str(good.pk), "sent_at": time.time()}})
        document = Answer(key, str(evil.pk)).to_document()
        answer(document=document, signature=signed("jobs.answer", document, agent=str(evil.pk), password=EVIL))
        assert "answer" not in Job.objects.get(pk=job.pk).waiting[key]

    def test_what_it_holds_is_its_own(self, store: Any, evil: Agent, good: Agent) -> None:
        row = DesiredSection.objects.create(agent=good, section="networks", wanted=7)
        document = Held(str(good.pk), "networks", 7).to_document()
        tasks.desired_held(
            document=document, signature=signed("infra.desired_held", document, agent=str(evil.pk), password=EVIL)
        )
        row.refresh_from_db()
        assert row.held == 0


def message(task: str, kwargs: Any = None, *, embed: Any = None, **more: Any) -> dict[str, Any]:
    body = json.dumps([[], kwargs or {}, embed])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": task, "id": "1", "lang": "py", "retries": 0},
        "properties": {
            "delivery_tag": "1",
            "delivery_info": {"exchange": "", "routing_key": "control"},
            "body_encoding": "base64",
        },
        **more,
    }


CALLBACK = {"callbacks": [{"task": "jobs.advance", "args": ["x"], "kwargs": {}, "options": {"queue": "control"}}]}
BAD = [
    "this is no message",
    "[]",
    "9" * 5000,
    "null",
    "[" * 100_000,
    b"\xff\xfe",
    json.dumps({}),
    json.dumps({"headers": {"task": "jobs.answer"}, "body": "x", "properties": {}}),
    json.dumps(message("jobs.advance", {"job": str(uuid.uuid4())})),
    json.dumps(message("jobs.retention")),
    json.dumps(message("infra.watch")),
    json.dumps(message(["jobs.answer"])),  # type: ignore[arg-type]
    json.dumps(message("jobs.answer", **{"content-type": "application/x-python-serialize"})),
    json.dumps(message("jobs.answer", body="AAAA")),
    json.dumps(message("jobs.answer", body=base64.b64encode(b"[1]").decode())),
    json.dumps(message("jobs.answer", headers={"task": "jobs.answer", "compression": "zlib"})),
]


class TestTheSharedQueue:
    @pytest.fixture
    def came(self, store: Any, redis_port: int) -> Any:
        """What a worker would be given of `control.answers`, until the one message that is meant for the end."""

        def drain() -> list[Any]:
            taken: list[Any] = []
            store.lpush("control.answers", json.dumps(message("jobs.answer", {"document": "the end"})))
            with app.connection_for_read(f"redis://127.0.0.1:{redis_port}/0") as connection:
                queue = Queue("control.answers", no_declare=True)

                def take(said: Any) -> None:
                    taken.append(said)
                    said.ack()

                with Consumer(connection, [queue], on_message=take):
                    while not taken or taken[-1].payload[1]["document"] != "the end":
                        connection.drain_events(timeout=10)
            return taken[:-1]

        return drain

    @pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
    def test_what_is_no_message_of_agents_ends_nobody(self, hostile: Any, came: Any, bad: Any) -> None:
        hostile.lpush("control.answers", bad)
        assert came() == []

    def test_without_the_guard_a_worker_would_break(self, hostile: Any, redis_port: int) -> None:
        """Shows that the tests above test something."""
        from kombu import Connection

        hostile.lpush("control.answers", "this is no message")
        with (
            Connection(f"redis://127.0.0.1:{redis_port}/0", transport=PlainTransport) as connection,
            Consumer(connection, [Queue("control.answers", no_declare=True)], on_message=print),
            pytest.raises(ValueError),
        ):
            connection.drain_events(timeout=10)

    def test_nothing_but_document_and_signature_comes_through(self, hostile: Any, came: Any) -> None:
        bad = message("jobs.answer", {"document": {"a": 1}, "signature": {}, "queue": "x"}, embed=CALLBACK)
        bad["headers"] |= {"eta": "2099-01-01T00:00:00", "stamps": {}, "group": "x", "retries": 99}
        bad["properties"] |= {"reply_to": "control", "delivery_tag": "another's"}
        hostile.lpush("control.answers", json.dumps(bad))
        (taken,) = came()
        assert taken.payload == [[], {"document": {"a": 1}, "signature": {}}, None]
        assert not {"eta", "stamps", "group"} & set(taken.headers)
        assert taken.headers["retries"] == 0
        assert taken.delivery_tag != "another's"
        assert taken.delivery_info == {"exchange": "", "routing_key": "control.answers"}
        assert "reply_to" not in taken.properties

    def test_refusals_are_told(self, hostile: Any, came: Any) -> None:
        hostile.lpush("control.answers", json.dumps(message("jobs.retention")))
        came()
        record = AuditRecord.objects.get(action="agent.message_refused")
        assert record.detail["reason"] == "not_for_agents"


class TestFlooding:
    def test_its_own_keys_are_emptied_when_they_grow(
        self, store: Any, hostile: Any, evil: Agent, good: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flooding, "OWN_BYTES", 100_000)
        store.hset(f"mica:progress:{good.pk}", "key", "{}")
        hostile.set(f"mica:agent:{evil.pk}:sample", "x" * 200_000)
        hostile.hset(f"mica:progress:{evil.pk}", mapping={f"key-{n}": "x" * 2000 for n in range(200)})
        flooding.watch()
        assert not store.exists(f"mica:agent:{evil.pk}:sample", f"mica:progress:{evil.pk}")
        assert store.hlen(f"mica:progress:{good.pk}") == 1
        record = AuditRecord.objects.get(action="agent.flooding")
        assert record.resource_uuid == evil.pk

    def test_answers_to_nobody_are_removed(
        self, store: Any, hostile: Any, evil: Agent, good: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flooding, "ANSWERS_AT_ONCE", 10)
        store.rpush(f"mica:answer:{good.pk}:q", "{}")
        for number in range(12):
            hostile.rpush(f"mica:answer:{evil.pk}:{number}", "{}")
        flooding.watch()
        assert store.keys("mica:answer:*") == [f"mica:answer:{good.pk}:q"]

    def test_the_shared_list_keeps_its_oldest(self, store: Any, hostile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flooding, "SHARED_BYTES", 50_000)
        store.lpush("control.answers", "the first")
        for _ in range(200):
            hostile.lpush("control.answers", "x" * 1000)
        flooding.watch()
        assert store.llen("control.answers") < 110
        assert store.rpop("control.answers") == "the first"
        assert AuditRecord.objects.get(action="agent.flooding").detail["where"] == "control.answers"

    def test_nobody_is_blamed_in_peace(self, store: Any, evil: Agent, good: Agent) -> None:
        store.set(f"mica:agent:{good.pk}:alive", "{}", ex=15)
        flooding.watch()
        assert not AuditRecord.objects.filter(action="agent.flooding").exists()


def test_a_value_that_makes_no_sense_harms_nobody(store: Any, hostile: Any, evil: Agent) -> None:
    """Heartbeat, sample and progress are the agent's own to write: whoever reads them bears anything."""
    from cloud.infra.services import connection
    from cloud.jobs import agents

    for text in ("no json", "[]", "9" * 5000, '{"boot_id": [], "held": 7, "in_work": 3}', "[" * 100_000):
        hostile.set(f"mica:agent:{evil.pk}:alive", text, ex=15)
        hostile.hset(f"mica:progress:{evil.pk}", "key", text)
        agents.heartbeat(evil.pk)
        agents.progress({"key": evil.pk})
        connection.watch()


def test_its_connections_are_few(
    store: Any, hostile: Any, evil: Agent, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flooding, "CONNECTIONS", 5)
    others = [sign_in(redis_port, str(evil.pk), EVIL) for _ in range(8)]
    for other in others:
        other.ping()
    flooding.watch()
    assert [c for c in store.client_list() if c["user"] == redis_acl.user_name(str(evil.pk))] == []
    assert AuditRecord.objects.filter(action="agent.flooding", resource_uuid=evil.pk).exists()
