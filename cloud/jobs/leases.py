"""Who works on a job, and when it is looked at again.

A step of rows runs under the job's row lock, which PostgreSQL takes from a process that dies. What runs longer than one
transaction (several turns, a slow step) besides holds a lease by the database's clock, which a dead worker loses.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import Q
from django.db.models.functions import Now

from cloud.jobs.models import Job

# A kick is on its way to a worker, a topic may be woken, a machine asked again: the sweep looks when that is over.
LOOK_AFTER_S = 5.0
LOOK_FIRST_S = 2.0


def database_now() -> Any:
    """The database's clock, the one all leases and deadlines are by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


class Clock:
    """The database's clock as of when a row was read; asked for once, counted on from there."""

    def __init__(self, now: datetime | None = None) -> None:
        self._read: datetime = now or database_now()
        self._at = time.monotonic()

    def now(self) -> datetime:
        return self._read + timedelta(seconds=time.monotonic() - self._at)

    def after(self, seconds: float) -> datetime:
        return self.now() + timedelta(seconds=seconds)


def locked(uuid: UUID, owner: str) -> Job | None:
    """The live job under its row lock, with the time as `read_at`; None when it has ended or another has its lease."""
    free = Q(lease_until=None) | Q(lease_until__lt=Now()) | Q(lease_owner=owner)
    jobs = Job.objects.live().select_for_update().exclude(workflow="batch")
    job: Job | None = jobs.filter(free, pk=uuid).annotate(read_at=Now()).first()
    return job


def take(uuid: UUID, owner: str) -> bool:
    """Take a live job that nobody else has, for what runs outside transactions; whether this call did."""
    free = Q(lease_until=None) | Q(lease_until__lt=Now()) | Q(lease_owner=owner)
    return bool(Job.objects.live().filter(free, pk=uuid).update(lease_until=_from_now(), lease_owner=owner))


def release(uuid: UUID, owner: str) -> None:
    """Let the job go, for another worker to take."""
    Job.objects.filter(pk=uuid, lease_owner=owner).update(lease_until=None, lease_owner="", look_at=look_at())


def look_at() -> Any:
    """When the sweep is to look at a job that was just put before the workers."""
    return Now() + timedelta(seconds=LOOK_AFTER_S)


@contextmanager
def held_open(uuid: UUID, owner: str) -> Iterator[None]:
    """Keep the lease alive while a slow step runs outside any transaction."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(settings.MICA["lease_s"] / 3):
            with suppress(OperationalError, InterfaceError):  # the next one may be in time
                Job.objects.filter(pk=uuid, lease_owner=owner).update(lease_until=_from_now())
            close_old_connections()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _from_now() -> Any:
    return Now() + timedelta(seconds=settings.MICA["lease_s"])
