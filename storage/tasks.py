"""Celery entry points of storage: what runs by the clock."""

from cloud.celery import app
from cloud.common.locks import once


@app.task(name="storage.empty_bin")
@once("storage.empty_bin")
def empty_bin() -> None:
    from storage.services import images

    images.empty_bin()
