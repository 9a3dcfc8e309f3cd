"""VictoriaMetrics on loopback of the management namespace, and vmauth before it for the agents.

vmauth 1.79 reads its users at start and again on SIGHUP or GET /-/reload, which does the same and answers 200 at once.
A file it cannot parse (or without users) is refused: the users it had stay and its log says why. Control writes it at
enrolment and asks for the reload.
"""

from __future__ import annotations

import json
import pwd
import secrets
from pathlib import Path

from launcher.control.accounts import as_user, own_folder
from launcher.instance import Instance
from launcher.lab.plan import MANAGEMENT_ADDRESS

STORE_URL = "http://127.0.0.1:8428"
DOOR_PORT = 8427
RETENTION = "15d"
# Debian and Ubuntu name the user of the package differently over time.
STORE_USERS = ("_victoria-metrics", "victoria-metrics")


def agent_url() -> str:
    return f"https://{MANAGEMENT_ADDRESS}:{DOOR_PORT}"


def reload_url() -> str:
    return f"{agent_url()}/-/reload"


def users_file(instance: Instance) -> Path:
    """vmauth's users, one an agent; written by control."""
    return instance.data / "metrics/auth.yml"


def tls_prefix(instance: Instance) -> Path:
    return instance.data / "metrics/tls/vmauth"


def store_command(instance: Instance) -> list[str | Path]:
    return [
        *_as_store_user(),
        "victoria-metrics",
        f"-storageDataPath={_store(instance)}",
        f"-retentionPeriod={RETENTION}",
        f"-httpListenAddr={STORE_URL.removeprefix('http://')}",
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=512MB",
    ]


def door_command(instance: Instance) -> list[str | Path]:
    return [
        "vmauth",
        f"-httpListenAddr={MANAGEMENT_ADDRESS}:{DOOR_PORT}",
        f"-auth.config={users_file(instance)}",
        "-tls",
        f"-tlsCertFile={tls_prefix(instance)}.pem",
        f"-tlsKeyFile={tls_prefix(instance)}.key",
    ]


def prepare(instance: Instance) -> None:
    """Folders, and a users file with nobody real in it (vmauth refuses an empty one)."""
    users = users_file(instance)
    users.parent.mkdir(parents=True, exist_ok=True)
    user = _store_user()
    if user:
        own_folder(_store(instance), user)
    if not users.exists():
        users.touch(mode=0o600)
        # JSON is YAML: nothing to quote by hand.
        nobody = {"bearer_token": secrets.token_urlsafe(32), "url_prefix": f"{STORE_URL}/"}
        users.write_text(json.dumps({"users": [nobody]}, indent=1) + "\n")


def _store(instance: Instance) -> Path:
    return instance.data / "metrics/store"


def _store_user() -> str | None:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((user for user in STORE_USERS if user in known), None)


def _as_store_user() -> list[str]:
    user = _store_user()
    return as_user(user) if user else []
