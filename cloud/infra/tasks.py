"""Celery entry points of infrastructure: what agents tell, and what runs by the clock."""

from typing import Any

from cloud.celery import app
from cloud.common.locks import once
from cloud.infra import freshness
from cloud.jobs.origin import from_agents


@from_agents("infra.agent_hello", oldest_s=freshness.OLDEST_S)
def agent_hello(document: dict[str, Any]) -> None:
    from cloud.infra.services import connection

    connection.hello(document)


@from_agents("infra.observed", oldest_s=freshness.OLDEST_S)
def observed(document: dict[str, Any]) -> None:
    from cloud.infra import observations

    observations.dispatch(document)


@from_agents("infra.desired_held", oldest_s=freshness.OLDEST_S)
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


@app.task(name="infra.flooding")
@once("infra.flooding")
def watch_flooding() -> None:
    from cloud.infra.services import flooding

    flooding.watch()


@app.task(name="infra.certificates")
@once("infra.certificates")
def look_after_certificates() -> None:
    from cloud.infra.services import certificates

    certificates.look_after()


@app.task(name="infra.quarantine")
@once("infra.quarantine")
def quarantine() -> None:
    from cloud.infra.services import quarantine as kept

    kept.purge_due()
