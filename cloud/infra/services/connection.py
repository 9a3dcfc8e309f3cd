"""The link to agents: who is connected, by their hello and their heartbeats. Rows change only when that changes."""

import logging
import math
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Connection
from cloud.common.wire import Document, Hello
from cloud.infra import enrolment, freshness, signals, simulation
from cloud.infra.drivers import redis_acl
from cloud.infra.models import Agent, Host
from cloud.infra.services import capacity, certificates, desired, silence
from cloud.infra.workflows.revoke_agent import REVOKED
from cloud.jobs import agents, cleaning, engine
from cloud.jobs.machines import Machine

log = logging.getLogger(__name__)

NEWEST_KEY = "mica:infra:newest_heartbeat"
ACCESS_KEY = "mica:infra:access_given"
SILENT = "agent_silent"
SKEW_NOTED_S = 1.0
# What `connection_reason` holds → what people read.
REASONS = {
    "": "",
    SILENT: _("Its agent has not been heard from for 15 seconds."),
    REVOKED: _("Its access was revoked. Reconnect it to let it in again."),
}


@transaction.atomic
def hello(document: Document) -> None:
    """An agent's first word after it (re)connects: its facts are noted, it is connected, and is sent what it lacks.

    One that comes too late is of an agent that has said more since: its heartbeats tell what counts. Only the first of
    an agent, or of a restart, is heard even then, for no other tells what it tells.
    """
    said = Hello.from_document(document)
    agent = Agent.objects.select_for_update().filter(pk=said.agent).first()
    if agent is None:
        log.warning("hello of an unknown agent %s", said.agent)
        return
    if freshness.is_stale(said.at) and not _is_first(agent, said):
        log.warning("hello of agent %s came too late", said.agent)
        return
    rebooted = agent.boot_id not in ("", said.boot_id)
    enrolment.note_certificate(agent, str(said.facts.pop("certificate", "")))
    changes = {
        "version": said.version[:64],
        "protocol": min(max(0, said.protocol), 32767),
        "clock_skew_s": _number(said.facts.get("clock_skew_s")),
        "boot_id": said.boot_id,
        "facts": said.facts,
        "hello_at": Now(),
    }
    Agent.objects.filter(pk=agent.pk).update(**changes)
    for host in Host.objects.select_related("cluster__zone").filter(agent=agent):
        _note_hardware(host, said.facts)
    certificates.tell_newcomer(agent)
    desired.settle(agent, said.held, said.failures, is_hello=True)
    _connected(agent.pk, rebooted=rebooted, is_hello=True)
    transaction.on_commit(lambda: engine.wake(f"hello:{agent.pk}"), robust=True)


def _is_first(agent: Agent, said: Hello) -> bool:
    """Whether nothing was heard yet of this run of the agent's machine, which goes on as its heartbeat tells."""
    alive = agents.heartbeat(agent.pk) or {}
    return agent.boot_id != said.boot_id == alive.get("boot_id")


def watch() -> None:
    """Compare all heartbeats with the rows, and note who fell silent and who is back. Run every two seconds."""
    client = agents.redis()
    uptime_s, run = _server(client)
    seen = ("pk", "boot_id", "connection", "version", "protocol", "clock_skew_s")
    known = list(Agent.objects.exclude(hello_at=None).only(*seen))
    heartbeats = _heartbeats(client, [agent.pk for agent in known])
    ages = {agent.pk: heartbeats[agent.pk][0] for agent in known if agent.connection == Connection.CONNECTED}
    now, newest_at = _newest(client, ages.values())
    for uuid in silence.silent(silence.Look(now, uptime_s, ages, newest_at)):
        _disconnected(uuid)
    for agent in known:
        age, alive = heartbeats[agent.pk]
        if age is None or age >= silence.FRESH_S:
            continue
        # A restart so short that nobody missed the agent, of which its hello did not tell in time.
        is_restarted = agent.boot_id not in ("", alive.get("boot_id", agent.boot_id))
        if agent.connection != Connection.CONNECTED or is_restarted:
            _back(agent.pk, alive)
        _note_changes(agent, alive)
    _keep_access(client, run)


def _note_changes(agent: Agent, alive: Document) -> None:
    """What a heartbeat tells anew: another release, another gap between the clocks (by a second or more)."""
    changes = {name: alive[name] for name in ("version", "protocol") if alive.get(name, "") not in ("", None)}
    changes = {name: told for name, told in changes.items() if told != getattr(agent, name)}
    skew_s = _number(alive.get("clock_skew_s"))
    if skew_s is not None and (agent.clock_skew_s is None or abs(skew_s - agent.clock_skew_s) >= SKEW_NOTED_S):
        changes["clock_skew_s"] = skew_s
    if changes:
        Agent.objects.filter(pk=agent.pk).update(**changes)
        engine.wake(f"hello:{agent.pk}")


def _number(value: Any) -> float | None:
    """A finite number of seconds that a machine tells, or None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and abs(value) < 1e12 else None


def _server(client: Any) -> tuple[float, str]:
    """How many seconds Redis has been up, and the name of this run of it."""
    server = client.info("server")
    return float(server["uptime_in_seconds"]), str(server["run_id"])


def _heartbeats(client: Any, uuids: list[UUID]) -> dict[UUID, tuple[float | None, Document]]:
    """Age in seconds (None when expired) and content of each agent's heartbeat, in one round trip.

    The age is what is gone of the key's time to live: nobody's clock but Redis' own has a part in it.
    """
    with client.pipeline(transaction=False) as pipeline:
        for uuid in uuids:
            pipeline.pttl(f"mica:agent:{uuid}:alive").get(f"mica:agent:{uuid}:alive")
        answers = pipeline.execute()
    found: dict[UUID, tuple[float | None, Document]] = {}
    for uuid, left_ms, text in zip(uuids, answers[::2], answers[1::2], strict=True):
        age = max(0.0, silence.HEARTBEAT_TTL_S - left_ms / 1000) if left_ms >= 0 else None
        found[uuid] = (age, agents.read_heartbeat(text) or {})
    return found


def _newest(client: Any, ages: Iterable[float | None]) -> tuple[float, float]:
    """Now, and when the last heartbeat of anybody came: kept in Redis, as heartbeats expire before a minute is over."""
    now = freshness.now()
    seen = [now - age for age in ages if age is not None]
    newest_at = max([*seen, float(client.get(NEWEST_KEY) or 0)])
    if seen:
        client.set(NEWEST_KEY, newest_at)
    return now, newest_at


@transaction.atomic
def _disconnected(uuid: UUID) -> None:
    changes = {
        "connection": Connection.DISCONNECTED,
        "connection_reason": SILENT,
        "connection_changed_at": Now(),
    }
    if not Agent.objects.connected().filter(pk=uuid).update(**changes):
        return
    Host.objects.filter(agent_id=uuid).update(**changes)
    log.warning("agent %s is silent", uuid)
    signals.tell(signals.agent_disconnected, Agent.objects.get(pk=uuid))


@transaction.atomic
def _back(uuid: UUID, alive: Document) -> None:
    """A heartbeat of one who was silent. Its hello may be lost: the boot id in the heartbeat tells as much."""
    agent = Agent.objects.select_for_update().filter(pk=uuid).first()
    if agent is None:
        return
    boot_id = str(alive.get("boot_id", agent.boot_id))
    rebooted = agent.boot_id not in ("", boot_id)
    if agent.connection == Connection.CONNECTED and not rebooted:
        return  # its hello was first
    Agent.objects.filter(pk=uuid).update(boot_id=boot_id)
    desired.settle(agent, alive.get("held", {}), alive.get("failures"), is_hello=rebooted)
    _connected(uuid, rebooted=rebooted, is_hello=rebooted)


def _connected(uuid: UUID, *, rebooted: bool, is_hello: bool) -> None:
    """Note that an agent is there. After a hello or a restart it is told even when nobody had missed it."""
    changes = {"connection": Connection.CONNECTED, "connection_reason": "", "connection_changed_at": Now()}
    is_news = Agent.objects.silent().filter(pk=uuid).update(**changes)
    Host.objects.filter(agent_id=uuid).exclude(connection=Connection.CONNECTED).update(**changes)
    if is_news:
        log.info("agent %s is connected", uuid)
    if is_news or is_hello:
        # Before anything new reaches it: what it still has of jobs that ended while it was away.
        transaction.on_commit(lambda: cleaning.agent_back(uuid), robust=True)
        signals.tell(signals.agent_connected, Agent.objects.get(pk=uuid), rebooted=rebooted)


def machine(agent: str) -> Machine | None:
    """What the job engine must know of an agent's machine; None when there is none any more."""
    found = Agent.objects.filter(pk=agent).annotate(read_at=Now()).first()
    if found is None:
        return None
    silent_s = 0.0
    if found.connection == Connection.DISCONNECTED and found.connection_changed_at:
        silent_s = (found.read_at - found.connection_changed_at).total_seconds() + silence.HEARTBEAT_TTL_S
    return Machine(found.name, silent_s, found.public_key)


def _note_hardware(host: Host, facts: Document) -> None:
    """The hardware fields of a host, from its agent's facts; what the agent does not tell stays as it was."""
    versions = facts.get("versions") or {}
    told = {
        "hostname": facts.get("hostname"),
        "os_name": facts.get("os_name"),
        "kernel": facts.get("kernel"),
        "hypervisor_version": versions.get("qemu"),
        "cpu_model": facts.get("cpu_model"),
        "cpu_threads": facts.get("cpu_threads"),
        "memory_bytes": facts.get("memory_bytes"),
        "is_kvm_usable": facts.get("is_kvm_usable"),
    }
    known = {name: value for name, value in told.items() if value is not None}
    for name, value in known.items():
        setattr(host, name, value)
    host.save(update_fields=[*known, "updated_at"])
    if host.activity != "deleting":
        capacity.set_totals(host, cpu=host.cpu_threads, memory_bytes=host.memory_bytes)


def _keep_access(client: Any, run: str) -> None:
    """Renew all agents' access once in each run of Redis, and with each release that changes what agents may do.

    A Redis that was started without its users' file, and a metric store's guard without its list, have them again.
    """
    given = f"{run} {redis_acl.fingerprint()}"
    if client.get(ACCESS_KEY) == given:
        return
    for agent in simulation.without(Agent.objects.exclude(redis_password_hash="")):
        enrolment.grant(agent, *enrolment.hashes(agent))
    simulation.renew(client)
    enrolment.publish_tokens()
    client.set(ACCESS_KEY, given)
