"""Redis as an agent's Celery uses it: takes from its own two lists, pushes to control's one, and keeps nothing there.

Celery would keep what it has taken in Redis until it is acknowledged, and look each few seconds, by a script under a
lock, for what was not. An agent acknowledges as it takes, and its journal and control's sending again make good what
is lost in between: so it needs none of that, and its user in Redis may do none of it (`cloud.infra.drivers.redis_acl`).
"""

from typing import Any

from kombu.transport import virtual
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import QoS as RedisQoS
from kombu.transport.redis import Transport as RedisTransport

_in_process: Any = virtual.QoS


class QoS(RedisQoS):  # type: ignore[misc]
    """What was taken is known in this process alone."""

    def append(self, message: Any, delivery_tag: str) -> None:
        _in_process.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        _in_process.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        _in_process.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        self._delivered.clear()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        return


class Channel(RedisChannel):  # type: ignore[misc]
    QoS = QoS


class Transport(RedisTransport):  # type: ignore[misc]
    Channel = Channel
