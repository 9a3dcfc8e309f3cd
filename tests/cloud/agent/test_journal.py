"""The rules that keep a late or repeated message from acting."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.agent.journal import Journal, Verdict
from cloud.common.wire import Answer, Command, Failure


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


def refusal(outcome):
    verdict, answer = outcome
    assert verdict is Verdict.ANSWER
    return answer.failure.code


def test_new_command_is_worked_on(journal, make_command):
    assert journal.accept(make_command()) == (Verdict.WORK, None)


def test_finished_key_is_answered_again(journal, make_command):
    command = make_command()
    journal.accept(command)
    answer = Answer(command.key, "agent", {"size_bytes": 5}, None)
    journal.finish(answer)
    assert journal.accept(command) == (Verdict.ANSWER, answer)


def test_failure_is_answered_again(journal, make_command):
    command = make_command()
    journal.accept(command)
    answer = Answer(command.key, "agent", failure=Failure("rejected", "disk_full", "The disk is full."))
    journal.finish(answer)
    assert journal.accept(command) == (Verdict.ANSWER, answer)


def test_unfinished_key_is_worked_on_again_after_the_agent_died(path, make_command):
    command = make_command()
    first = Journal(path, "agent")
    first.accept(command)
    first.close()
    assert Journal(path, "agent").accept(command) == (Verdict.WORK, None)


def test_finished_key_survives_the_agent(path, make_command):
    command = make_command()
    first = Journal(path, "agent")
    first.accept(command)
    first.finish(Answer(command.key, "agent"))
    # Not closed: as if killed.
    assert Journal(path, "agent").accept(command)[0] is Verdict.ANSWER


def test_what_was_done_in_an_earlier_boot_is_done_again(path, make_command):
    command = make_command()
    for boot, expected in (("one", Verdict.WORK), ("one", Verdict.ANSWER), ("two", Verdict.WORK)):
        journal = Journal(path, "agent", boot)
        assert journal.accept(command)[0] is expected
        journal.finish(Answer(command.key, "agent", {}, None))
        journal.close()


def test_older_job_is_refused_for_good(path, make_command):
    first = Journal(path, "agent")
    first.accept(make_command(sequence=7))
    second = Journal(path, "agent")
    assert refusal(second.accept(make_command(job="job-0", sequence=6))) == "refused_late"
    assert refusal(second.accept(make_command(job="job-0", sequence=6, direction="undo"))) == "refused_late"
    assert second.accept(make_command(job="job-0", sequence=6, resource="r-2"))[0] is Verdict.WORK


def test_run_is_refused_once_its_undo_was_taken(journal, make_command):
    assert journal.accept(make_command(direction="undo"))[0] is Verdict.WORK
    assert refusal(journal.accept(make_command())) == "refused_undone"
    assert journal.accept(make_command(step="1"))[0] is Verdict.WORK


def test_run_that_waits_may_not_act_once_its_undo_was_taken(journal, make_command):
    run = make_command()
    journal.accept(run)
    assert journal.may_run(run) is None
    journal.accept(make_command(direction="undo"))
    assert journal.may_run(run).code == "refused_undone"


def test_earlier_attempt_is_refused_after_a_later_one(journal, make_command):
    journal.accept(make_command(attempt=2))
    assert refusal(journal.accept(make_command(attempt=1))) == "refused_late"
    assert journal.accept(make_command(attempt=1, direction="undo"))[0] is Verdict.WORK


def test_pruning_forgets_only_what_is_old(journal, make_command):
    journal.accept(make_command(sequence=5))
    journal.prune()
    assert refusal(journal.accept(make_command(job="job-0", sequence=4))) == "refused_late"
    journal.prune(time.time() + 1)
    assert journal.accept(make_command(job="job-0", sequence=4))[0] is Verdict.WORK


def test_another_agents_journal_is_not_believed(path, make_command):
    Journal(path, "one").accept(make_command(sequence=9))
    other = Journal(path, "two")
    assert other.accept(make_command(sequence=1))[0] is Verdict.WORK
    assert other.sections("boot") == []


def test_newest_number_of_a_section_wins(journal):
    assert journal.want("networks", 2, {"bridges": [2]})
    assert not journal.want("networks", 1, {"bridges": [1]})
    assert not journal.want("networks", 2, {"bridges": ["again"]})
    assert journal.want("networks", 3, {"bridges": [3]})
    (section,) = journal.sections("boot")
    assert (section.number, section.body, section.held) == (3, {"bridges": [3]}, 0)


def test_what_was_held_is_forgotten_when_the_machine_was_restarted(journal):
    journal.want("networks", 2, {})
    journal.hold("networks", 2, "boot-1")
    assert journal.sections("boot-1")[0].held == 2
    assert journal.sections("boot-2")[0].held == 0


def test_nonce_is_good_once_even_after_a_restart(path):
    first = Journal(path, "agent")
    assert first.use_nonce("n", time.time() + 60)
    assert not first.use_nonce("n", time.time() + 60)
    assert not Journal(path, "agent").use_nonce("n", time.time() + 60)


deliveries = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from(["run", "undo"]), st.integers(1, 2), st.booleans()),
    max_size=40,
)
_numbers = itertools.count()


@settings(max_examples=150, deadline=None)
@given(deliveries=deliveries)
def test_whatever_comes_in_whatever_order_nothing_late_acts(tmp_path_factory, deliveries):
    """Messages of three jobs on one resource: lost, repeated, in any order, the agent dying before any answer."""
    path = tmp_path_factory.getbasetemp() / f"any-order-{next(_numbers)}.sqlite3"
    journal = Journal(path, "agent")
    acted: list[Command] = []
    finished: set[str] = set()
    for sequence, step, direction, attempt, is_dying in deliveries:
        key = f"{sequence}:{step}:{direction}:{attempt}"
        command = Command(key, f"job-{sequence}", sequence, "r", str(step), direction, attempt, "test.act", {}, 4e9)
        verdict, answer = journal.accept(command)
        assert (verdict is Verdict.WORK) == (answer is None)
        if key in finished:
            assert answer is not None
            assert answer.failure is None
        if verdict is Verdict.ANSWER:
            continue
        assert key not in finished
        assert all(old.sequence <= sequence for old in acted)
        same = [old for old in acted if (old.job, old.step) == (command.job, command.step)]
        assert direction == "undo" or all(old.direction == "run" for old in same)
        assert all(old.attempt <= attempt for old in same if old.direction == direction)
        acted.append(command)
        if is_dying:
            journal.close()
            journal = Journal(path, "agent")
        else:
            journal.finish(Answer(key, "agent"))
            finished.add(key)
    journal.close()
