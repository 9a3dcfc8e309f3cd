"""A Redis user for each agent, limited to its own keys (https://redis.io/docs/management/security/acl/). No Django."""

import hashlib
from typing import Any

import redis

# What needs no key. (AUTH, HELLO and QUIT are always allowed.) Each key has its own few commands, as ACL selectors:
# FLUSHALL, CONFIG, scripts, SCAN, PUBLISH and everything else stay forbidden.
COMMANDS = ["ping", "time", "client|setname", "multi", "exec", "discard", "unwatch"]


def user_name(uuid: str) -> str:
    return f"agent-{uuid}"


def rules(uuid: str) -> list[str]:
    """The words of ACL SETUSER that describe what an agent may do, without its password."""
    return [
        "-@all",
        *(f"+{command}" for command in COMMANDS),
        "resetkeys",
        "resetchannels",
        "clearselectors",
        # Its own two queues: control fills them, the agent empties them.
        f"(+brpop ~agent.{uuid} ~agent.{uuid}.bulk)",
        f"(+set +del %W~mica:agent:{uuid}:alive %W~mica:agent:{uuid}:sample)",
        f"(+hset +hdel +expire %W~mica:progress:{uuid})",
        f"(+rpush +expire %W~mica:answer:{uuid}:*)",
        f"(+exists %R~mica:abort:{uuid}:*)",
        # The list of all agents: nothing there can be read, taken back or trimmed, and each message is signed.
        "(+lpush %W~control.answers)",
    ]


def own_keys(uuid: str) -> list[str]:
    """The keys that an agent may fill, but for the answers to queries."""
    queues = [f"agent.{uuid}", f"agent.{uuid}.bulk"]
    return [*queues, f"mica:agent:{uuid}:alive", f"mica:agent:{uuid}:sample", f"mica:progress:{uuid}"]


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
    left = [*own_keys(uuid), f"mica:circuit:{uuid}", f"mica:circuit:{uuid}:probe"]
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
