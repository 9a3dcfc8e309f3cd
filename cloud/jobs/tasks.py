"""Celery entry points of the job engine."""

from typing import Any
from uuid import UUID

from cloud.celery import app
from cloud.common.locks import once
from cloud.jobs.origin import from_agents


@app.task(name="jobs.advance")
def advance(job: str, queue: str = "control") -> None:
    from cloud.jobs import engine

    engine.advance(UUID(job), queue)


@from_agents("jobs.answer")
def answer(document: dict[str, Any]) -> None:
    from cloud.jobs import circuit, engine

    circuit.answered(document["agent"])
    engine.answer(document)


@app.task(name="jobs.go_on")
def go_on(parent: str) -> None:
    from importlib import import_module

    from django.conf import settings

    from cloud.jobs import batches

    import_module(settings.ROOT_URLCONF)  # which knows what a verb is on which list
    batches.go_on(UUID(parent), patience_s=60.0)


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
