"""The audit port: what lies below `cloud.events` tells of its acts here, and `cloud.events` writes them down.

Apps above `cloud.events` call `cloud.events.services.audit.record` itself; both are the same function.
"""

from typing import Any, Protocol

from cloud.common.actor import Actor


class Recorder(Protocol):
    def __call__(
        self, action: str, *, actor: Actor, resource: Any = None, job: Any = None, detail: Any = None, result: str = ""
    ) -> Any: ...


_recorders: list[Recorder] = []


def fill(recorder: Recorder) -> None:
    """Say who writes the records; called once, by `cloud.events` when it is ready."""
    _recorders[:] = [recorder]


def record(
    action: str, *, actor: Actor, resource: Any = None, job: Any = None, detail: Any = None, result: str = ""
) -> None:
    """Write down an act, in the caller's transaction. Does nothing where no recorder is installed."""
    for recorder in _recorders:
        recorder(action, actor=actor, resource=resource, job=job, detail=detail, result=result)
