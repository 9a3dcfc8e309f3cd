"""Rows of the quarantine, below the workflows that keep it as much as the services do."""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.core import serializers
from django.db import transaction

from cloud.common.doctor import CHECKS, Finding
from cloud.common.wire import Document
from cloud.infra.models import QuarantinedThing


def serialised(rows: Iterable[Any]) -> list[Document]:
    """Rows as they go into the quarantine."""
    found: list[Document] = json.loads(serializers.serialize("json", rows))
    return found


def keep(id: str, finding: Finding, rows: list[Document], *, keeper: str) -> None:
    """Write down that the thing is in the quarantine as `id`, with the rows that went with it."""
    QuarantinedThing.objects.update_or_create(
        uuid=UUID(id),
        defaults={
            "kind": finding.kind,
            "agent_id": finding.agent or None,
            "keeper": keeper,
            "resource_type": finding.resource_type,
            "resource_uuid": finding.resource_uuid[:64],
            "name": finding.name[:255],
            "thing": finding.thing,
            "rows": rows,
        },
    )


@transaction.atomic
def put_rows_back(kept: QuarantinedThing) -> None:
    """Make the rows again and forget the thing. Raises IntegrityError when their places are taken."""
    for row in serializers.deserialize("python", kept.rows):
        row.save()
    if kept.kind in CHECKS:
        CHECKS[kept.kind].back(kept.thing)
    kept.delete()


@transaction.atomic
def forget(kept: QuarantinedThing) -> None:
    """The thing is gone for good; what was kept for it is free."""
    if kept.kind in CHECKS:
        CHECKS[kept.kind].gone(kept.thing)
    kept.delete()
