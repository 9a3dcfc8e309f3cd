"""Who works on a job: a conditional update, with a lease by the database's clock that a dead worker loses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import Q
from django.db.models.functions import Now

from cloud.jobs.models import Job


def database_now() -> Any:
    """The database's clock, the one all leases and deadlines are by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def take(uuid: UUID, owner: str) -> bool:
    """Take a live job that nobody else has; whether this call did."""
    return bool(
        Job.objects.live()
        .filter(Q(lease_until=None) | Q(lease_until__lt=Now()), pk=uuid)
        .exclude(workflow="batch")
        .update(lease_until=_from_now(), lease_owner=owner)
    )


def release(uuid: UUID, owner: str) -> None:
    """Let the job go, for another worker to take."""
    Job.objects.filter(pk=uuid, lease_owner=owner).update(lease_until=None, lease_owner="")


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
