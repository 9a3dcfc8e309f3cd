"""What apps above hear of the link to agents. Sent on commit, each receiver shielded from the others' errors.

`agent_connected(sender=Agent, agent, rebooted)`: the agent is back or new; `rebooted` tells that its machine was
restarted, so that what ran there runs no more. `agent_disconnected(sender=Agent, agent)`: it fell silent.
`certificates_revoked(sender=Agent, agent)`: nobody should listen to it any more.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from django.dispatch import Signal

from cloud.infra.models import Agent

log = logging.getLogger(__name__)

TRIES = 5

agent_connected = Signal()
agent_disconnected = Signal()
certificates_revoked = Signal()


def tell(signal: Signal, agent: Agent, **facts: Any) -> None:
    """Send the signal once the transaction has committed."""
    transaction.on_commit(lambda: _tell_now(signal, agent, facts))


def _tell_now(signal: Signal, agent: Agent, facts: dict[str, Any]) -> None:
    for receiver, answer in signal.send_robust(Agent, agent=agent, **facts):
        error = answer if isinstance(answer, Exception) else None
        for _attempt in range(TRIES - 1):
            if not isinstance(error, (OperationalError, InterfaceError)):
                break
            # A deadlock that the database broke, or a connection it closed: what was said is not said again.
            error = _tell_again(signal, receiver, agent, facts)
        if error is not None:
            log.error("receiver %r failed for agent %s", receiver, agent.pk, exc_info=error)


def _tell_again(signal: Signal, receiver: Callable[..., Any], agent: Agent, facts: dict[str, Any]) -> Exception | None:
    close_old_connections()
    try:
        receiver(signal=signal, sender=Agent, agent=agent, **facts)
    except Exception as error:
        return error
    return None
