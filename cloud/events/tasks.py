"""What runs by itself in this app."""

from datetime import timedelta

from celery import shared_task

from cloud.common.locks import once
from cloud.config import services as config
from cloud.events.services import retention


@shared_task(name="events.retention")
@once("events.retention")
def sweep_retention() -> None:
    retention.sweep(timedelta(seconds=config.value("audit.kept_for")))
