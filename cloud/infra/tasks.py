"""Celery entry points of infrastructure: what agents tell, and what runs by the clock."""

from typing import Any

from cloud.celery import app
from cloud.common.locks import once


@app.task(name="infra.agent_hello")
def agent_hello(document: dict[str, Any]) -> None:
    from cloud.infra.services import connection

    connection.hello(document)


@app.task(name="infra.observed")
def observed(document: dict[str, Any]) -> None:
    from cloud.infra import observations

    observations.dispatch(document)


@app.task(name="infra.desired_held")
def desired_held(document: dict[str, Any]) -> None:
    from cloud.infra.services import desired

    desired.note(document)


@app.task(name="infra.send_desired")
def send_desired(agent: str, section: str) -> None:
    from cloud.infra.services import desired

    desired.send(agent, section)


@app.task(name="infra.desired_sweep")
@once("infra.desired_sweep")
def desired_sweep() -> None:
    from cloud.infra.services import desired

    desired.sweep()


@app.task(name="infra.watch")
@once("infra.watch")
def watch() -> None:
    from cloud.infra.services import connection

    connection.watch()
