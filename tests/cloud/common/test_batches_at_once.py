"""Two batches over the same resources at once: no deadlock, each item once."""

import threading
from typing import Any

import pytest
from django.db import connection

from cloud.common import batches as door
from cloud.common.actor import Actor
from cloud.events.models import AuditRecord
from cloud.infra.models import Zone
from cloud.jobs import batches
from cloud.jobs.models import Job, JobState
from tests.factories.infra import ZoneFactory


@pytest.mark.django_db(transaction=True)
def test_in_opposite_orders(actor: Actor) -> None:
    import cloud.urls  # noqa: F401 - knows the verbs

    zones = [ZoneFactory() for _ in range(12)]
    parents = [
        batches.begin(door.Batch("zones", verb, f"zone.{verb}", "infra.Zone", [zone.pk for zone in order]), actor=actor)
        for verb, order in (("disable", zones), ("enable", zones[::-1]), ("disable", zones))
    ]
    errors: list[Any] = []

    def go_on(parent: Job) -> None:
        try:
            batches.go_on(parent.pk)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    # Each parent has two who would go on with it.
    threads = [threading.Thread(target=go_on, args=[parent]) for parent in parents for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for parent in parents:
        batches.go_on(parent.pk)
        parent.refresh_from_db()
        assert (parent.state, batches.counts(parent)["succeeded"]) == (JobState.SUCCEEDED, 12)
    assert Zone.objects.count() == 12
    assert AuditRecord.objects.filter(action="zone.enable").count() <= 12
