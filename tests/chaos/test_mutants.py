"""Chaos finds what it is there for: engine, agent or bookings are broken on purpose, and a case fails."""

from collections.abc import Callable
from typing import Any

import pytest

from cloud.agent.journal import Journal, Verdict
from cloud.infra.services import capacity
from cloud.jobs import holds, sweep
from compute.models import Instance
from compute.workflows import bookings
from compute.workflows.steps import HostReservation
from tests.chaos import test_messages, test_steps
from tests.chaos.cases import Stage
from tests.chaos.cloud import Restless

pytestmark = pytest.mark.chaos


def nothing_is_refused(patch: pytest.MonkeyPatch) -> None:
    """A run acts though its undo was accepted, and so does an older job's key."""
    patch.setattr(Journal, "_refusal", lambda self, database, command: None)


def nothing_is_remembered(patch: pytest.MonkeyPatch) -> None:
    """The agent keeps no journal of what it took and how it ended."""
    patch.setattr(Journal, "accept", lambda self, command: (Verdict.WORK, None))
    patch.setattr(Journal, "_refusal", lambda self, database, command: None)


def a_release_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HostReservation, "undo", lambda self, ctx: None)


def room_is_given_back_twice(patch: pytest.MonkeyPatch) -> None:
    once = bookings.leave_host

    def twice(instance_uuid: Any) -> None:
        booked = Instance.objects.filter(pk=instance_uuid, is_reserved=True).select_related("host").first()
        once(instance_uuid)
        if booked and booked.host:
            capacity.give_back(booked.host, cpu=booked.cpu, memory_bytes=booked.memory_bytes)

    patch.setattr(bookings, "leave_host", twice)


def nothing_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "_send_again", lambda job: None)


def nobody_sweeps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "_look_after", lambda job, *, is_late: None)


def locks_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(holds, "free", lambda job: None)


START = 2  # StartAgain, of instance.start
LOST = ("instance.reboot", 0, "command", "lost")
MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Stage], None]]] = [
    (nothing_is_refused, lambda stage: test_messages.test_run_comes_after_its_undo(stage, "instance.create", 5)),
    (nothing_is_remembered, lambda stage: test_messages.test_run_comes_after_its_undo(stage, "instance.start", START)),
    (a_release_is_forgotten, lambda stage: test_steps.test_failed_at_a_step(stage, "instance.start", START)),
    (room_is_given_back_twice, lambda stage: test_steps.test_failed_at_a_step(stage, "instance.start", START)),
    (nothing_is_sent_again, lambda stage: test_messages.test_command_or_answer(stage, *LOST)),
    (nobody_sweeps, lambda stage: test_steps.test_process_killed(stage, "instance.start", START, "killed_after")),
    (locks_stay, lambda stage: test_steps.test_failed_at_a_step(stage, "instance.start", START)),
]


@pytest.mark.parametrize(("mutate", "case"), [pytest.param(*one, id=one[0].__name__) for one in MUTANTS])
def test_is_found(stage: Stage, mutate: Callable[[pytest.MonkeyPatch], None], case: Callable[[Stage], None]) -> None:
    case(stage)  # whole, it passes
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        # Worlds are made by what is whole; only the case meets the mutant.
        with pytest.raises((AssertionError, Restless)):
            case(stage)
