"""Doors into an instance: its console, and a TCP connection into its network. Each opens once, with a short ticket.

A ticket is a random word; what it opens is kept in Redis for its short life and taken out by its first use.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Invalid, Missing, Problem
from cloud.config.services import value
from cloud.events.services import audit
from cloud.jobs.agents import redis
from compute.messages import SERIAL_VERB, VNC_VERB
from compute.models import Instance, InstanceState
from network.models import Nic

CONSOLES = {"vnc": VNC_VERB, "serial": SERIAL_VERB}
TUNNEL_VERB = "network.tcp"


def _runs(instance: Instance, actor: Actor | None = None) -> Problem | None:
    if instance.state in (InstanceState.RUNNING, InstanceState.PAUSED) and instance.host_id:
        return None
    return Conflict(
        _("%(name)s is %(state)s.") % {"name": instance.name, "state": instance.state},
        code="wrong_state",
        advice=_("Start the instance first."),
    )


@dataclass(frozen=True)
class Door:
    """What a ticket opens: a verb of an agent's stream door on a resource."""

    agent: str
    verb: str
    resource: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Ticket:
    """A ticket as the caller gets it. `path` is the websocket's, `ttl_s` how long it waits to be used."""

    ticket: str
    path: str
    ttl_s: int


@acting("instance.console", checks=[each(_runs)])
def console(instance: Instance, *, actor: Actor, kind: str = "vnc") -> Ticket:
    """A ticket for the screen (`vnc`) or the serial console (`serial`) of a running instance."""
    return _issue(instance, "instance.console", actor, Door(agent_of(instance), CONSOLES[kind], str(instance.pk), {}))


@acting("instance.tunnel", checks=[each(_runs)])
def tunnel(instance: Instance, *, actor: Actor, port: int, ip: str | None = None) -> Ticket:
    """A ticket for one TCP connection to a port of the instance, through its own network."""
    return _issue(instance, "instance.tunnel", actor, tunnel_door(instance, port=port, ip=ip))


def tunnel_door(instance: Instance, *, port: int, ip: str | None = None) -> Door:
    plugged = Nic.objects.filter(instance_uuid=instance.pk).order_by("device_index")
    nic = (plugged.filter(address=ip) if ip else plugged).first()
    if nic is None:
        raise Invalid(_("The instance has no such network card."), errors={"ip": [_("Choose one of its addresses.")]})
    params = {"l3": str(nic.l3_id), "ip": str(nic.address), "port": port}
    return Door(agent_of(instance), TUNNEL_VERB, str(instance.pk), params)


def agent_of(instance: Instance) -> str:
    """The agent of the host that the instance runs on. Raises Conflict when it does not run."""
    if problem := _runs(instance):
        raise problem
    assert instance.host is not None
    return str(instance.host.agent_id)


@transaction.atomic
def _issue(instance: Instance, act: str, actor: Actor, door: Door) -> Ticket:
    word, ttl = secrets.token_urlsafe(32), value("console.ticket_ttl_s")
    redis().set(f"mica:door:{word}", json.dumps(asdict(door)), ex=ttl)
    audit.record(act, actor=actor, resource=instance)
    return Ticket(word, f"/ws/stream/{word}/", ttl)


def redeem(word: str) -> Door:
    """What the ticket opens. Raises Missing when it was used, is too old or never was."""
    kept = redis().getdel(f"mica:door:{word}")
    if kept is None:
        raise Missing(_("This ticket was used already or is too old."), code="ticket_spent")
    return Door(**json.loads(kept))
