"""What apps above hear of the link to agents. Sent on commit, each receiver shielded from the others' errors.

`agent_connected(sender=Agent, agent, rebooted)`: the agent is back or new; `rebooted` tells that its machine was
restarted, so that what ran there runs no more. `agent_disconnected(sender=Agent, agent)`: it fell silent.
"""

import logging
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from cloud.infra.models import Agent

log = logging.getLogger(__name__)

agent_connected = Signal()
agent_disconnected = Signal()


def tell(signal: Signal, agent: Agent, **facts: Any) -> None:
    """Send the signal once the transaction has committed."""
    transaction.on_commit(lambda: _tell_now(signal, agent, facts))


def _tell_now(signal: Signal, agent: Agent, facts: dict[str, Any]) -> None:
    for receiver, answer in signal.send_robust(Agent, agent=agent, **facts):
        if isinstance(answer, Exception):
            log.error("receiver %r failed for agent %s", receiver, agent.pk, exc_info=answer)
