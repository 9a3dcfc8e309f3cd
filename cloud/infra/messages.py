"""What infrastructure asks of every agent."""

from dataclasses import dataclass
from typing import ClassVar

from cloud.common.wire import Message


@dataclass(frozen=True)
class Retire(Message):
    """Stop for good: forget the access, take the unit away, answer, end. Asked when the machine leaves the cloud."""

    kind: ClassVar[str] = "infra.retire"
