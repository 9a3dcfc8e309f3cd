"""What agents see and tell, given to whoever registered for the topic.

@observations.on("compute.domain_event")
def domain_event(agent: Agent, body: Document) -> None: ...
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from cloud.common.wire import Document, Observation
from cloud.infra import freshness
from cloud.infra.models import Agent

log = logging.getLogger(__name__)

Receiver = Callable[[Agent, Document], None]
R = TypeVar("R", bound=Receiver)
_receivers: dict[str, list[Receiver]] = {}


def on(topic: str) -> Callable[[R], R]:
    """Register the function for a topic, as `compute.inventory`. It is called outside any transaction."""

    def register(receiver: R) -> R:
        receivers = _receivers.setdefault(topic, [])
        if receiver not in receivers:
            receivers.append(receiver)
        return receiver

    return register


def dispatch(document: Document) -> None:
    """Hand an observation to its receivers; one's error does not stop the others.

    Unknown agents are not heard, nor is what was seen more than 30 seconds ago: the world has moved on since.
    """
    observation = Observation.from_document(document)
    if freshness.is_stale(observation.at):
        log.warning("observation %s of agent %s came too late", observation.topic, observation.agent)
        return
    # The facts are long, and hardly anybody asks for them.
    agent = Agent.objects.defer("facts").filter(pk=observation.agent).first()
    if agent is None:
        log.warning("observation %s of an unknown agent %s", observation.topic, observation.agent)
        return
    for receiver in _receivers.get(observation.topic, []):
        try:
            receiver(agent, observation.body)
        except Exception:
            log.exception("observation %s of agent %s: %r failed", observation.topic, agent.pk, receiver)
