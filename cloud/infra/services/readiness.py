"""Which machines may be given new work, and what is wrong with those that work: their agents' side of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloud.agent.version import understands
from cloud.common.errors import Unavailable
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.infra import releases
from cloud.infra.models import Agent, Host
from cloud.jobs import circuit
from cloud.jobs.agents import register_admission

SKEW_BORNE_S = 2.0
CERTIFICATE_ENDS_SOON = timedelta(days=7)
TOO_OLD = gettext_lazy("Its agent (%(version)s) is more than one release apart; it gets no new work until upgraded.")


@register_admission
def expect_understood(agent: UUID | str) -> None:
    """Raise Unavailable `agent_too_old` when the agent is more than one release apart."""
    row = Agent.objects.filter(pk=agent).only("version", "protocol").first()
    if row is not None and not understands(row.protocol):
        raise Unavailable(
            filled(TOO_OLD, version=row.version or "?"),
            code="agent_too_old",
            advice=gettext_lazy("Upgrade the agent, or reconnect the machine."),
        )


def reasons_against() -> Callable[[Host], str | None]:
    """For a choice of hosts: why one of them gets no new work, None when it may. Reads Redis once."""
    opened = circuit.opened()

    def reason(host: Host) -> str | None:
        if host.agent is None:
            return None
        if not understands(host.agent.protocol):
            return str(TOO_OLD) % {"version": host.agent.version or "?"}
        held = opened.get(str(host.agent_id))
        return str(circuit.REASONS.get(held["reason"], held["reason"])) if held else None

    return reason


def warnings(agent: Agent, held: Document | None) -> list[dict[str, str]]:
    """What a person should look at, as [{code, detail}] in the reader's language; `held` is its open breaker."""
    found: list[dict[str, str]] = []

    def warn(code: str, detail: str) -> None:
        found.append({"code": code, "detail": detail})

    skew_s = agent.clock_skew_s or 0.0
    if abs(skew_s) > SKEW_BORNE_S:
        text = _("Its clock is %(seconds).1f s ahead.") if skew_s > 0 else _("Its clock is %(seconds).1f s behind.")
        warn("clock_skew", text % {"seconds": abs(skew_s)})
    if not understands(agent.protocol):
        warn("agent_too_old", str(TOO_OLD) % {"version": agent.version or "?"})
    elif releases.is_outdated(agent.version):
        warn("agent_outdated", _("Its agent is %(version)s; %(current)s is here.") % _versions(agent))
    if held:
        warn("circuit_open", str(circuit.REASONS.get(held["reason"], held["reason"])))
    ends_at = agent.certificate_expires_at
    if ends_at is not None and ends_at < timezone.now() + CERTIFICATE_ENDS_SOON:
        warn("certificate_ending", _("Its certificate ends on %(date)s.") % {"date": ends_at.date().isoformat()})
    return found


def _versions(agent: Agent) -> dict[str, Any]:
    return {"version": agent.version, "current": releases.version()}
