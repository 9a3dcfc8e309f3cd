"""Celery entry points of the job engine."""

from typing import Any
from uuid import UUID

from cloud.celery import app
from cloud.common.locks import once


@app.task(name="jobs.advance")
def advance(job: str, queue: str = "control") -> None:
    from cloud.jobs import engine

    engine.advance(UUID(job), queue)


@app.task(name="jobs.answer")
def answer(document: dict[str, Any]) -> None:
    from cloud.jobs import engine

    engine.answer(document)


@app.task(name="jobs.sweep")
@once("jobs.sweep")
def sweep() -> None:
    from cloud.jobs import sweep as sweeping

    sweeping.run()


@app.task(name="jobs.retention")
@once("jobs.retention")
def retention() -> None:
    from cloud.jobs import sweep as sweeping

    sweeping.forget_old()
