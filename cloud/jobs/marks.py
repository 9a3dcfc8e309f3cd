"""What happened in a job's steps, written down in one statement however many steps a turn went through."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from cloud.common.wire import Document

# A step keeps the first moment it ran and the last one it ended; a mark that changes nothing writes nothing.
_WRITE = """
UPDATE jobs_jobstep AS step SET
    state = mark.state,
    error = COALESCE(mark.error, step.error),
    started_at = CASE WHEN mark.is_begun AND step.state <> 'running' THEN clock_timestamp() ELSE step.started_at END,
    finished_at = CASE WHEN mark.state = 'running' THEN step.finished_at ELSE clock_timestamp() END
FROM (VALUES {rows}) AS mark (position, state, error, is_begun)
WHERE step.job_id = %s AND step.position = mark.position AND step.state <> mark.state
"""
_ROW = "(%s::int, %s::text, %s::jsonb, %s::boolean)"


@dataclass
class _Mark:
    state: str
    error: Document | None = None
    is_begun: bool = False


class Marks:
    """The marks of one job that are not written yet."""

    def __init__(self, job: UUID) -> None:
        self._job = job
        self._marks: dict[int, _Mark] = {}

    def set(self, position: int, state: str, error: Document | None = None) -> None:
        """Note the state of the step at this position; `error` stays when a later mark has none."""
        mark = self._marks.setdefault(position, _Mark(state))
        mark.state, mark.error = state, error or mark.error
        mark.is_begun = mark.is_begun or state == "running"

    def write(self) -> None:
        if not self._marks:
            return
        values: list[Any] = []
        for position, mark in self._marks.items():
            values += [position, mark.state, json.dumps(mark.error) if mark.error else None, mark.is_begun]
        with connection.cursor() as cursor:
            cursor.execute(_WRITE.format(rows=", ".join([_ROW] * len(self._marks))), [*values, self._job])
        self._marks.clear()
