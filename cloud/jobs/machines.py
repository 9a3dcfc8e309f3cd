"""What the engine must know of the machine behind an agent: its name, and for how long it has been silent.

Who has fallen silent is infra's to say (it knows when Redis itself was away); it fills the port below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from cloud.jobs import agents

AGENT_LOST_AFTER_S = 45.0


@dataclass(frozen=True)
class Machine:
    """A machine that has an agent; `silent_s` is for how long it has been called disconnected, 0 while it is not.

    `public_key` (PEM) is what secrets in messages to it are sealed to, empty while it is not known.
    """

    name: str
    silent_s: float = 0.0
    public_key: str = ""


Find = Callable[[str], Machine | None]
_finders: list[Find] = []


def fill(find: Find) -> None:
    """Say who knows the machines; called once, by infra."""
    _finders[:] = [find]


def find(agent: UUID | str) -> Machine | None:
    """The machine of this agent; None when it was taken out of the cloud."""
    return _finders[-1](str(agent))


def is_lost(agent: UUID | str) -> bool:
    """Whether the machine has been silent for so long that nothing waits for it any more."""
    if agents.is_alive(agent):
        return False
    machine = find(agent)
    return machine is None or machine.silent_s >= AGENT_LOST_AFTER_S
