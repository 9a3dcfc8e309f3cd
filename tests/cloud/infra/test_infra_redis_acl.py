"""What an agent may do in Redis, asked of a real one: its own work, and nothing else."""

import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloud.celery import app
from cloud.common.wire import Query
from cloud.infra.drivers import redis_acl
from cloud.jobs import agents

PASSWORD = "agent-password"
HASH = hashlib.sha256(PASSWORD.encode()).hexdigest()


def sign_in(port: int, agent: str, password: str = PASSWORD) -> Any:
    """A connection as this agent, which takes the first refusal as the answer."""
    user = redis_acl.user_name(agent)
    return redis.Redis(port=port, username=user, password=password, decode_responses=True, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def agent(store: Any) -> str:
    made = str(uuid.uuid4())
    redis_acl.grant(store, made, HASH)
    return made


@pytest.fixture
def hostile(agent: str, redis_port: int) -> Iterator[Any]:
    """An agent's own connection, in the hands of somebody else."""
    client = sign_in(redis_port, agent)
    yield client
    client.close()


def test_its_own_keys(store: Any, hostile: Any, agent: str) -> None:
    hostile.set(f"mica:agent:{agent}:alive", "{}", ex=15)
    hostile.delete(f"mica:agent:{agent}:alive")
    store.lpush(f"agent.{agent}", "x")
    assert hostile.brpop([f"agent.{agent}"], timeout=1)
    hostile.rpush(f"mica:answer:{agent}:some-query", "{}")
    hostile.expire(f"mica:answer:{agent}:some-query", 30)
    hostile.hset(f"mica:progress:{agent}", "key", "{}")
    hostile.hdel(f"mica:progress:{agent}", "key")
    assert hostile.exists(f"mica:abort:{agent}:key") == 0
    hostile.lpush("control.answers", "{}")


OTHER = str(uuid.uuid4())
FORBIDDEN = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "me", "on"),
    ("MONITOR",),
    ("SHUTDOWN",),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("REPLICAOF", "evil", "6379"),
    ("MODULE", "LIST"),
    ("SUBSCRIBE", "mica"),
    ("PUBLISH", "mica", "x"),
    ("GET", f"mica:agent:{OTHER}:alive"),
    ("SET", f"mica:agent:{OTHER}:alive", "{}"),
    ("GET", "mica:secret:x"),
    ("LPUSH", f"agent.{OTHER}", "x"),
    ("BRPOP", f"agent.{OTHER}", "1"),
    ("LPUSH", "control", "x"),
    ("LPUSH", "control.ssh", "x"),
    ("RPOP", "control.answers"),
    ("LPOP", "control.answers"),
    ("BRPOP", "control.answers", "1"),
    ("LINDEX", "control.answers", "0"),
    ("LRANGE", "control.answers", "0", "-1"),
    ("LLEN", "control.answers"),
    ("LTRIM", "control.answers", "1", "0"),
    ("LREM", "control.answers", "0", "x"),
    ("LSET", "control.answers", "0", "x"),
    ("LINSERT", "control.answers", "BEFORE", "x", "y"),
    ("RPUSH", "control.answers", "x"),
    ("DEL", "control.answers"),
    ("UNLINK", "control.answers"),
    ("EXPIRE", "control.answers", "0"),
    ("RENAME", "control.answers", "mine"),
    ("COPY", "control.answers", "mine"),
    ("MOVE", "control.answers", "1"),
    ("DUMP", "control.answers"),
    ("SET", "control.answers", "x"),
    ("SORT", "control.answers", "STORE", "mine"),
    ("DEL", f"agent.{OTHER}"),
    ("HGETALL", "unacked"),
    ("HGETALL", "agent.unacked"),
    ("SADD", f"_kombu.binding.agent.{OTHER}", "x"),
    ("SADD", "_kombu.binding.control", "x"),
    ("SADD", "_kombu.binding.control.answers", "x"),
    ("SMEMBERS", "_kombu.binding.control.answers"),
    ("HGET", f"mica:progress:{OTHER}", "key"),
    ("HSET", f"mica:progress:{OTHER}", "key", "{}"),
    ("SET", f"mica:abort:{OTHER}:key", "1"),
    ("EXISTS", f"mica:abort:{OTHER}:key"),
    ("RPUSH", f"mica:answer:{OTHER}:query", "{}"),
    ("LPOP", f"mica:answer:{OTHER}:query"),
    ("EXPIRE", f"mica:answer:{OTHER}:query", "0"),
    ("DEL", f"mica:circuit:{OTHER}"),
    ("EVAL", "return redis.call('get', KEYS[1])", "1", "mica:secret:x"),
    ("EVAL", "return redis.call('flushall')", "0"),
    ("EVAL", "while true do end", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
    ("SCRIPT", "KILL"),
    ("FUNCTION", "LIST"),
    ("SELECT", "1"),
    ("SWAPDB", "0", "1"),
    ("WATCH", "control"),
    ("CLIENT", "PAUSE", "1000"),
    ("CLIENT", "NO-EVICT", "on"),
    ("CLIENT", "TRACKING", "on"),
    ("DEBUG", "SLEEP", "1"),
    ("INFO",),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("TYPE", "control"),
    ("OBJECT", "ENCODING", "control"),
    ("MEMORY", "USAGE", "control"),
    ("BGREWRITEAOF",),
    ("SAVE",),
    ("SLOWLOG", "GET"),
    ("LATENCY", "RESET"),
    ("SYNC",),
    ("PSYNC", "?", "-1"),
    ("WAIT", "1", "0"),
    ("XREAD", "STREAMS", "control", "0"),
    ("PSUBSCRIBE", "*"),
    ("SSUBSCRIBE", "mica"),
]


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_nothing_else(hostile: Any, command: tuple[str, ...]) -> None:
    with pytest.raises((redis.exceptions.NoPermissionError, redis.exceptions.ResponseError)) as refused:
        hostile.execute_command(*command)
    said = str(refused.value)
    assert "permission" in said or "can't run this command" in said or "not allowed" in said, said


def test_another_password_or_none(store: Any, agent: str, redis_port: int) -> None:
    for password in ("wrong", ""):
        with pytest.raises(redis.exceptions.RedisError):
            sign_in(redis_port, agent, password).ping()


def test_two_passwords_while_one_is_replaced(store: Any, agent: str, hostile: Any, redis_port: int) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    redis_acl.grant(store, agent, other, HASH)
    assert sign_in(redis_port, agent).ping()
    assert sign_in(redis_port, agent, "other").ping()
    redis_acl.grant(store, agent, other)
    with pytest.raises(redis.exceptions.AuthenticationError):
        sign_in(redis_port, agent).ping()


def test_revoked_is_cut_and_leaves_nothing(store: Any, agent: str, hostile: Any) -> None:
    hostile.set(f"mica:agent:{agent}:alive", "{}")
    store.lpush(f"agent.{agent}", "x")
    store.sadd(f"_kombu.binding.agent.{agent}", "x")
    for _ in range(2):
        redis_acl.revoke(store, agent)
    with pytest.raises(redis.exceptions.RedisError):
        hostile.set(f"mica:agent:{agent}:alive", "{}")
    assert store.keys("*") == []
    assert redis_acl.user_name(agent) not in redis_acl.users(store)


def test_users_survive_a_restart_of_redis(store: Any, agent: str) -> None:
    store.execute_command("ACL", "LOAD")
    assert redis_acl.user_name(agent) in redis_acl.users(store)


AGENT = """
import json, sys, threading
from cloud.agent.config import AgentConfig
from cloud.agent.intake import Intake
from cloud.agent.link import RedisLink
from cloud.common.wire import Query

config = AgentConfig(**json.loads(sys.argv[1]))
link = RedisLink(config, None)

def take(task, document, is_bulk):
    query = Query.from_document(document)
    link.beat({"boot_id": "b"})
    link.show_progress("key", {"percent": 1.0})
    link.is_aborted("key")
    link.forget("key")
    link.show_sample({})
    link.answer_query(query.id, {"id": query.id})
    link.part()

def connected():
    link.beat({})
    intake.send("infra.agent_hello", {})

intake = Intake(config, receive=take, connected=connected, sign=link.sign)
threading.Thread(target=lambda: (sys.stdin.read(), intake.stop()), daemon=True).start()
intake.run()
"""


def test_an_agents_celery_and_link_work_within_these_bounds(store: Any, agent: str, redis_port: int) -> None:
    """The agent's own classes in a process of their own, on both queues and every key: Redis must refuse nothing."""
    store.execute_command("ACL", "LOG", "RESET")
    url = f"redis://127.0.0.1:{redis_port}/0"
    config = {
        "uuid": agent,
        "redis_url": url,
        "redis_username": redis_acl.user_name(agent),
        "redis_password": PASSWORD,
    }
    process = subprocess.Popen([sys.executable, "-c", AGENT, json.dumps(config)], stdin=subprocess.PIPE)
    try:
        assert store.blpop(["control.answers"], timeout=20), refusals(store)
        with app.connection_for_write(url) as broker:
            for number, queue in enumerate((agents.queue(agent), agents.queue(agent, is_bulk=True))):
                name = f"{agent}:query-{number}"
                document = Query(name, "a.query", {}, 2e9).to_document()
                app.send_task("agent.query", kwargs={"document": document}, queue=queue, connection=broker)
                assert store.blpop([f"mica:answer:{name}"], timeout=10), refusals(store)
    finally:
        process.communicate(b"", timeout=10)
    assert process.returncode == 0
    assert refusals(store) == []


def refusals(store: Any) -> list[tuple[str, str]]:
    """What Redis refused its users lately: why, and which command or key."""
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in store.execute_command("ACL", "LOG")]
    return [(entry["reason"], entry["object"]) for entry in entries]
