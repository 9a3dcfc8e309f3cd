"""Creates as the engine really runs them, several steps a turn: what one costs, and that it may die in any turn."""

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from cloud.jobs import engine, sweep
from cloud.jobs.models import Job
from tests.compute.world import World

MOST_STATEMENTS = 47
TURNS = 4


class Killed(BaseException):
    """A process that died: nothing of its transaction stays."""


@pytest.fixture(autouse=True)
def _together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STEPS_A_TURN", 12)


def test_a_create_needs_few_statements(world: World) -> None:
    """From the job's first step to its end, with sending the DHCP entry and the look at the host that follows; the
    image is there already, as it is for all but the first."""
    world.create("first")
    _made, job = world.begin("second")
    with CaptureQueriesContext(connection) as said:
        world.settle()
    assert world.ended(job).state == "succeeded"
    statements = [query["sql"] for query in said if query["sql"] not in ("BEGIN", "COMMIT")]
    assert len(statements) <= MOST_STATEMENTS, "\n".join(each[:120] for each in statements)
    assert len([query for query in said if query["sql"] == "COMMIT"]) <= TURNS


@pytest.mark.parametrize("nth", range(TURNS))
def test_killed_in_any_turn(world: World, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """At the end of the turn, before anything of it is committed or sent."""
    world.create("first")
    turns: list[str] = []

    def dying(original: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            turns.append(original.__name__)
            if len(turns) != nth + 1:
                return original(*args, **kwargs)
            with transaction.atomic():
                original(*args, **kwargs)
                raise Killed

        return act

    (instance,), job = world.begin("second")
    monkeypatch.setattr(engine, "_transact", dying(engine._transact))
    monkeypatch.setattr(engine, "_take_answer", dying(engine._take_answer))
    with pytest.raises(Killed):
        world.settle()
    assert Job.objects.get(pk=job.pk).finished_at is None
    sweep.run()
    world.settle()
    assert world.ended(job).state == "succeeded"
    assert world.fresh(instance).state == "running"
    world.expect_sums()
