"""Who uses a piece of infrastructure: what apps above declared (`cloud.common.relations`) keeps it from deletion."""

from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction

from cloud.common import relations
from cloud.common.actor import Actor
from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.jobs import cleaning


def expect_none(resource: Any) -> None:
    """Raise Conflict (`in_use`), with what uses it, unless nothing does. Ask inside the deleting transaction."""
    if counts := relations.blocking([resource]).get(resource.pk):
        raise relations.in_use(resource, counts, is_named=True)


def nothing_blocks(machines: Sequence[Any], actor: Actor) -> dict[Any, Problem]:
    """A check of acts that delete machines. What one that is away still owes to ended jobs is given up with it: only
    the act itself finds out whether anything else uses it."""
    return relations.nothing_blocks([row for row in machines if row.connection == Connection.CONNECTED], actor)


class _SeenEnough(Exception):
    """Takes back what was done to see what would be left."""


def expect_none_without(agent: Any, expect: Callable[[], None]) -> None:
    """Have `expect` look at the cloud as it is without what the agent of a machine that is away still owes to ended
    jobs: nothing of that is changed."""
    try:
        with transaction.atomic():
            cleaning.drop(agent)
            expect()
            raise _SeenEnough
    except _SeenEnough:
        return
