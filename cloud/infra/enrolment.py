"""What enrolment leaves on a machine and in the platform's own stores: files, unit, certificate, Redis user, token.

Used by the steps of `workflows.steps`. All of it may be done twice; absent is fine where something is removed.
"""

import configparser
import hashlib
import io
import json
import logging
import secrets as random
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from cloud.common import pki, sealing, tls
from cloud.common.driver import Rejected
from cloud.infra import certificates, releases, secrets
from cloud.infra.drivers import redis_acl, vmauth
from cloud.infra.drivers.ssh import Remote
from cloud.infra.models import Agent
from cloud.infra.streams import STREAM_PORT
from cloud.jobs import agents

log = logging.getLogger(__name__)

BUNDLE = "/opt/mica/agent.pyz"
CONFIG = "/etc/mica/agent"
BEFORE = "/etc/mica/agent.before"
SUPERVISOR_TOOL = "/etc/mica/supervisorctl"
SUPERVISOR_FILE = "/etc/mica/supervisor.d/mica-agent.conf"
SYSTEMD_FILE = "/etc/systemd/system/mica-agent.service"
UNIT = "mica-agent"
COMMAND = f"/usr/bin/python3 -I {BUNDLE} run"
PYTHON = ["/usr/bin/python3", "-I", BUNDLE]
METRICS_LOCK = 0x6D69_6361


def unit_file(sections: dict[str, dict[str, str]]) -> bytes:
    """An INI file, as systemd and supervisor read them."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_dict(sections)
    text = io.StringIO()
    parser.write(text, space_around_delimiters=False)
    return text.getvalue().encode()


SYSTEMD_UNIT = unit_file(
    {
        "Unit": {
            "Description": "Mica agent",
            "After": "network-online.target libvirtd.service",
            "Wants": "network-online.target",
        },
        "Service": {
            "ExecStart": COMMAND,
            "Restart": "always",
            "RestartSec": "2",
            "KillMode": "process",
            "TimeoutStopSec": "20",
            "LimitNOFILE": "65536",
        },
        "Install": {"WantedBy": "multi-user.target"},
    }
)
SUPERVISOR_PROGRAM = unit_file(
    {
        f"program:{UNIT}": {
            "command": COMMAND,
            "autorestart": "true",
            "startsecs": "0",
            "startretries": "1000000",
            "stopwaitsecs": "20",
            "redirect_stderr": "true",
            "stdout_logfile": "/var/log/mica-agent/agent.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    }
)


def bundle() -> bytes:
    """The agent as one file."""
    return releases.current().content


def keep_present(remote: Remote, agent: Agent) -> None:
    """Put aside what is enrolled on the machine now, once: an enrolment that fails brings it back.

    What an earlier enrolment left there counts only while its access is good.
    """
    if remote.exists(BEFORE) and _password_hash(remote, f"{BEFORE}/config/agent.json") in hashes(agent):
        return
    script = (
        'set -e; umask 077; rm -rf "$1.new"; mkdir -p "$1.new"; '
        'if [ -e "$2" ]; then cp -a "$2" "$1.new/bundle"; fi; if [ -e "$3" ]; then cp -a "$3" "$1.new/config"; fi; '
        'rm -rf "$1"; mv "$1.new" "$1"'
    )
    remote.check(["sh", "-c", script, "sh", BEFORE, BUNDLE, CONFIG])


def bring_back(remote: Remote) -> None:
    """Put back what `keep_present` put aside."""
    script = (
        'set -e; [ -e "$1" ] || exit 0; rm -rf "$2" "$3"; '
        'if [ -e "$1/bundle" ]; then mv "$1/bundle" "$2"; fi; if [ -e "$1/config" ]; then mv "$1/config" "$3"; fi; '
        'rm -rf "$1"'
    )
    remote.check(["sh", "-c", script, "sh", BEFORE, BUNDLE, CONFIG])


def sign(remote: Remote, agent: Agent) -> None:
    """Have the machine make a key and ask for a certificate; sign it and put it there."""
    request = remote.check([*PYTHON, "csr", "--uuid", str(agent.pk)])
    directory: Path = settings.MICA["pki"]
    signed = certificates.sign(agent, request)
    remote.write(f"{CONFIG}/ca.pem", (directory / "ca.pem").read_bytes())
    remote.write(f"{CONFIG}/cert.pem", signed.certificate.encode())
    certificates.note(agent, signed)


def note_certificate(agent: Agent, certificate: str) -> None:
    """Keep the key in the certificate that an agent shows, for machines that were enrolled before it was kept.

    One that is not the platform's own for this agent, or not the one it was given last, is not believed.
    """
    if not certificate:
        return
    try:
        signed = pki.checked_certificate(settings.MICA["pki"], certificate, agent=str(agent.pk))
    except pki.PkiError as error:
        log.warning("agent %s shows a wrong certificate: %s", agent.pk, error)
        return
    if signed.serial != agent.certificate_serial:
        return
    key = sealing.public_key_of(certificate)
    if key != agent.public_key:
        Agent.objects.filter(pk=agent.pk).update(public_key=key)


def new_password() -> tuple[str, str]:
    """A password for Redis, and the hash of it that Redis takes and the database keeps."""
    password = random.token_urlsafe(32)
    return password, _hash(password)


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def write_config(remote: Remote, agent: Agent, *, password: str, hypervisor: str) -> None:
    """Write agent.json: who the machine is, where control is, and its secrets; readable by root alone."""
    places = settings.MICA
    document = {
        "uuid": str(agent.pk),
        "kind": agent.kind,
        "address": agent.address,
        "redis_url": places["agent_redis_url"],
        "redis_username": redis_acl.user_name(str(agent.pk)),
        "redis_password": password,
        "metrics_url": places["agent_metrics_url"],
        "metrics_token": secrets.unseal(agent.metrics_token_sealed),
        "stream_port": STREAM_PORT,
        "ticket_key": (places["pki"] / "ticket.pub").read_text().strip(),
        "hypervisor": hypervisor,
    }
    remote.write(f"{CONFIG}/agent.json", json.dumps(document, indent=1).encode())


def hashes(agent: Agent) -> list[str]:
    """What the agent may sign in to Redis with: its password, and those that may be on its machine instead."""
    return [one for one in (agent.redis_password_hash, *agent.spare_password_hashes) if one]


def give_spare(agent: Agent, password_hash: str) -> None:
    """Let the agent in with this password too, for as long as nobody knows which one its machine will have."""
    agent.spare_password_hashes = [*agent.spare_password_hashes, password_hash]
    Agent.objects.filter(pk=agent.pk).update(spare_password_hashes=agent.spare_password_hashes)
    grant(agent, *hashes(agent))


def settle_password(agent: Agent, password_hash: str) -> None:
    """The machine is known to have this password: no other one is good any more."""
    agent.redis_password_hash, agent.spare_password_hashes = password_hash, []
    Agent.objects.filter(pk=agent.pk).update(redis_password_hash=password_hash, spare_password_hashes=[])
    if password_hash:
        grant(agent, password_hash)
    else:
        revoke(agent)


def settle_as_found(remote: Remote, agent: Agent) -> None:
    """No password but the one that is on the machine now, of those that are known, is good any more."""
    found = _password_hash(remote, f"{CONFIG}/agent.json")
    settle_password(agent, found if found in hashes(agent) else agent.redis_password_hash)


def grant(agent: Agent, *password_hashes: str) -> None:
    """Let the agent into Redis with any of these passwords, and no other."""
    redis_acl.grant(agents.redis(), str(agent.pk), *password_hashes)


def revoke(agent: Agent) -> None:
    """Shut the agent out of Redis, of the metric store and of every machine's stream door."""
    certificates.revoke(agent)
    redis_acl.revoke(agents.redis(), str(agent.pk))
    Agent.objects.filter(pk=agent.pk).update(metrics_token_sealed="", redis_password_hash="", spare_password_hashes=[])
    publish_tokens()


def give_token(agent: Agent) -> None:
    """Give the agent a token for the metric store, once, and make the store's guard know it."""
    if not agent.metrics_token_sealed:
        agent.metrics_token_sealed = secrets.seal(random.token_urlsafe(32))
        Agent.objects.filter(pk=agent.pk).update(metrics_token_sealed=agent.metrics_token_sealed)
    publish_tokens()


def publish_tokens() -> None:
    """Write vmauth's list from the database and have it read: one writer at a time, so that none is forgotten."""
    places = settings.MICA
    if not places["vmauth_file"]:
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [METRICS_LOCK])
        sealed = Agent.objects.exclude(metrics_token_sealed="").values_list("metrics_token_sealed", flat=True)
        vmauth.write(Path(places["vmauth_file"]), [secrets.unseal(text) for text in sealed], places["metrics_url"])
    if places["vmauth_reload_url"]:
        is_tls = places["vmauth_reload_url"].startswith("https:")
        vmauth.reload(places["vmauth_reload_url"], tls.client_context(places["pki"] / "ca.pem") if is_tls else None)


def start_unit(remote: Remote) -> None:
    """Have the machine run the agent from now on, across restarts: by systemd, or by the lab's supervisor."""
    if tool := _supervisor(remote):
        remote.write(SUPERVISOR_FILE, SUPERVISOR_PROGRAM, mode="0644")
        # What is new to the supervisor is started by being told of; what it runs already must be started again.
        if f"{UNIT}: added" not in remote.check([tool, "update"]):
            remote.check([tool, "restart", UNIT])
    elif remote.exists("/run/systemd/system"):
        remote.write(SYSTEMD_FILE, SYSTEMD_UNIT, mode="0644")
        remote.check(["systemctl", "daemon-reload"])
        remote.check(["systemctl", "enable", UNIT])
        remote.check(["systemctl", "restart", UNIT])
    else:
        raise Rejected("no_service_manager", "The machine runs neither systemd nor the lab's supervisor.")


def stop_unit(remote: Remote) -> None:
    """Stop the agent for good."""
    if tool := _supervisor(remote):
        remote.remove(SUPERVISOR_FILE)
        remote.check([tool, "update"])
    elif remote.exists(SYSTEMD_FILE):
        remote.check(["systemctl", "disable", "--now", UNIT])
        remote.remove(SYSTEMD_FILE)
        remote.check(["systemctl", "daemon-reload"])


def enrolled_as(remote: Remote) -> str:
    """The uuid of the agent that the machine is already enrolled as, "" when it is not."""
    return str(_config(remote, f"{CONFIG}/agent.json").get("uuid", ""))


def _password_hash(remote: Remote, path: str) -> str:
    return _hash(str(_config(remote, path).get("redis_password", "")))


def _config(remote: Remote, path: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(remote.read(path) or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _supervisor(remote: Remote) -> str:
    return (remote.read(SUPERVISOR_TOOL) or "").strip()
