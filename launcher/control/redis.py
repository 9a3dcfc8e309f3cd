"""A private Redis: unix socket for control, TLS with client certificates on the management network for agents."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from urllib.parse import quote

from launcher.control.accounts import as_user, give, own_folder
from launcher.instance import Instance
from launcher.lab.plan import MANAGEMENT_ADDRESS
from launcher.process import wait_until

USER = "redis"
TLS_PORT = 6380


def data_folder(instance: Instance) -> Path:
    return instance.data / "redis"


def socket_path(instance: Instance) -> Path:
    return instance.run / "redis/redis.sock"


def url(instance: Instance) -> str:
    """As redis-py reads it; carries the password of the default user."""
    return f"unix://default:{quote(_password(instance), safe='')}@{socket_path(instance)}?db=0"


def agent_url() -> str:
    """Where agents find it; they bring their own certificate, user name and password."""
    return f"rediss://{MANAGEMENT_ADDRESS}:{TLS_PORT}/0"


def tls_prefix(instance: Instance) -> Path:
    """Certificate and key are this with .pem and .key."""
    return data_folder(instance) / "tls/server"


def command(instance: Instance) -> list[str | Path]:
    return [*as_user(USER), "redis-server", config_file(instance)]


def config_file(instance: Instance) -> Path:
    return instance.run / "redis/redis.conf"


def prepare(instance: Instance) -> None:
    """Write configuration and the access list it starts with; the certificate must be there."""
    own_folder(instance.run / "redis", USER, 0o750)
    folder = own_folder(data_folder(instance), USER)
    tls = own_folder(tls_prefix(instance).parent, USER)
    for name in ("server.pem", "server.key"):
        give(tls / name, USER, 0o600)
    authority = tls / "ca.pem"
    authority.write_bytes((instance.pki / "ca.pem").read_bytes())
    give(authority, USER, 0o644)
    access = folder / "users.acl"
    if not access.exists():
        access.touch(mode=0o600)
        # Agents' users are added by control at enrolment (ACL SETUSER, ACL SAVE), so the file is Redis' own.
        access.write_text(f"user default on >{_password(instance)} ~* &* +@all\n")
    give(access, USER, 0o600)
    options = [
        ("port", "0"),
        ("unixsocket", str(socket_path(instance))),
        ("unixsocketperm", "700"),
        ("bind", MANAGEMENT_ADDRESS),
        ("tls-port", str(TLS_PORT)),
        ("tls-cert-file", str(tls / "server.pem")),
        ("tls-key-file", str(tls / "server.key")),
        ("tls-ca-cert-file", str(authority)),
        ("tls-auth-clients", "yes"),
        ("aclfile", str(access)),
        ("dir", str(folder)),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("daemonize", "no"),
        ("logfile", ""),
        ("maxclients", "8000"),
        # An agent's machine may be in anybody's hands: one value, and what all connections together make Redis
        # buffer, stay small. Control watches the rest (cloud.infra.services.flooding).
        ("proto-max-bulk-len", "16mb"),
        ("client-query-buffer-limit", "64mb"),
        ("maxmemory-clients", "512mb"),
    ]
    config = config_file(instance)
    config.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in options))
    give(config, USER, 0o600)


def wait_ready(instance: Instance) -> None:
    """Wait until it answers, its append-only file loaded. Raises Refusal."""
    wait_until(lambda: _answers(instance), 60, "Redis answering", f"See {instance.log}/redis.log.")


def _answers(instance: Instance) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(5)
        try:
            door.connect(str(socket_path(instance)))
            door.sendall(f"AUTH default {_password(instance)}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                piece = door.recv(200)
                if not piece:
                    return False
                answer += piece
        except OSError:
            return False
    return answer == b"+OK\r\n+PONG\r\n"


def _password(instance: Instance) -> str:
    file = instance.data / "redis-password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(24) + "\n")
    return file.read_text().strip()


def _quoted(value: str) -> str:
    """redis.conf's own quoting, as sdssplitargs() reads it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
