"""Celery entry points of compute."""

from cloud.celery import app
from cloud.common.errors import Problem
from cloud.common.locks import once


@app.task(name="compute.host_back", autoretry_for=(Problem,), retry_backoff=2, retry_backoff_max=30, max_retries=10)
def host_back(agent: str) -> None:
    from cloud.infra.models import Agent
    from compute.services import reality

    if found := Agent.objects.filter(pk=agent).first():
        reality.host_back(found)


@app.task(name="compute.look")
def look(agent: str) -> None:
    from cloud.infra.models import Agent
    from compute.services import reality

    if found := Agent.objects.filter(pk=agent).first():
        reality.look(found)


@app.task(name="compute.reconcile")
@once("compute.reconcile")
def reconcile() -> None:
    from compute.services import bin as recycle_bin
    from compute.services import reality

    reality.bring_back_all()
    recycle_bin.expunge_due()
