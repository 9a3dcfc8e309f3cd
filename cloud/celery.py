"""Celery's application for the control side; agents have their own (`cloud.agent`)."""

import gc
import os

from celery import Celery
from celery.signals import celeryd_after_setup, worker_ready

from cloud.jobs import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloud.settings")

broker.guard()
app = Celery("mica")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_after_setup.connect
def _load_everything(**_: object) -> None:
    import django

    django.setup()


@worker_ready.connect
def _freeze(**_: object) -> None:
    # Full collections over a loaded Django cost hundreds of milliseconds: take what is loaded out of their sight.
    gc.collect()
    gc.freeze()
