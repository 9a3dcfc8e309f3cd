"""A Redis user for each agent, limited to its own keys (https://redis.io/docs/management/security/acl/). No Django."""

import hashlib
from typing import Any

import redis

# What Celery's transport and the agent's own link use; everything else, FLUSHALL and CONFIG included, stays forbidden.
COMMANDS = [
    "hello",
    "auth",
    "ping",
    "time",
    "client|setname",
    "client|id",
    "select",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "get",
    "set",
    "setnx",
    "setex",
    "del",
    "exists",
    "expire",
    "pexpire",
    "ttl",
    "pttl",
    "type",
    "brpop",
    "rpop",
    "lpop",
    "llen",
    "lrem",
    "lpush",
    "rpush",
    "lindex",
    "sadd",
    "srem",
    "smembers",
    "scard",
    "sismember",
    "hset",
    "hget",
    "hdel",
    "hexists",
    "hlen",
    "hmget",
    "hgetall",
    "zadd",
    "zrem",
    "zcard",
    "zscore",
    "zrange",
    "zrevrangebyscore",
    "zrangebyscore",
    "eval",
    "evalsha",
    "script|load",
    "info",
]


def user_name(uuid: str) -> str:
    return f"agent-{uuid}"


def rules(uuid: str) -> list[str]:
    """The words of ACL SETUSER that describe what an agent may do, without its password."""
    return [
        "-@all",
        *(f"+{command}" for command in COMMANDS),
        "resetkeys",
        "resetchannels",
        f"~agent.{uuid}*",
        f"~_kombu.binding.agent.{uuid}*",
        f"~_kombu.binding_permanent.agent.{uuid}*",
        "%RW~_kombu.binding_permanent.control.answers",
        f"~mica:agent:{uuid}:*",
        "%RW~_kombu.binding.control.answers",
        "%W~control.answers",
        "%W~mica:progress:*",
        "%W~mica:answer:*",
        "%R~mica:abort:*",
    ]


def fingerprint() -> str:
    """Changes when the rules do."""
    return hashlib.sha256(" ".join(rules("")).encode()).hexdigest()[:16]


def grant(client: Any, uuid: str, *password_hashes: str) -> None:
    """Make or renew the agent's user. The hashes are SHA-256 of the passwords it may use, in hexadecimal."""
    passwords = [f"#{one}" for one in password_hashes]
    client.execute_command("ACL", "SETUSER", user_name(uuid), "reset", "on", *passwords, *rules(uuid))
    _save(client)


def revoke(client: Any, uuid: str) -> None:
    """Delete the agent's user, which also cuts its connections, and what it left behind; absent is fine."""
    client.execute_command("ACL", "DELUSER", user_name(uuid))
    _save(client)
    left = [f"agent.{uuid}", f"agent.{uuid}.bulk", f"mica:agent:{uuid}:alive", f"mica:agent:{uuid}:sample"]
    client.delete(*left, *client.scan_iter(match=f"_kombu.binding.agent.{uuid}*", count=1000))


def users(client: Any) -> set[str]:
    """Names of all users that Redis knows."""
    return set(client.execute_command("ACL", "USERS"))


def _save(client: Any) -> None:
    try:
        client.execute_command("ACL", "SAVE")
    except redis.ResponseError as error:
        # Without an ACL file the users live until Redis restarts; the watch makes them anew then.
        if "not configured to use an ACL file" not in str(error):
            raise
