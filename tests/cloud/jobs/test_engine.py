from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from cloud.common.errors import Conflict
from cloud.common.wire import Failure
from cloud.jobs import agents, engine, services, sweep
from cloud.jobs.models import Job, JobState
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import AGENT, Lights

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def clean_world():
    flows.reset()
    Lights.ended.clear()
    yield
    flows.reset()


def open_job(zone, actor) -> Job:
    with transaction.atomic():
        return services.open(Lights, resource=zone, actor=actor, context={"given": 1})


def test_runs_to_the_end_and_wakes_on_its_topic(line, zone, actor, fresh):
    job = open_job(zone, actor)
    line.run()
    assert fresh(job).state == JobState.RUNNING
    assert list(fresh(job).waiting) == ["the-topic"]
    assert fresh(job).context == {"given": 1, "left": "a note"}
    flows.met.add("condition")
    engine.wake("the-topic")
    line.run()
    done = fresh(job)
    assert (done.state, done.percent, done.error) == (JobState.SUCCEEDED, 100, None)
    assert flows.world == {"kept", "first", "machine", "last"}
    assert [step.state for step in done.steps.all()] == ["succeeded"] * 5
    assert Lights.ended == ["succeeded"]


@pytest.mark.parametrize("breach", ["first", "last", "machine"])
def test_a_failure_at_any_step_undoes_everything(line, zone, actor, fresh, breach):
    flows.met.add("condition")
    flows.broken.add(breach)
    if breach == "machine":
        line.reply = lambda command: Failure("rejected", "no_power", "No power") if command.direction == "run" else {}
    job = open_job(zone, actor)
    line.run()
    done = fresh(job)
    assert done.state == JobState.FAILED
    assert flows.world == set()
    assert done.error["code"] == {"first": "no_first", "last": "internal_error", "machine": "no_power"}[breach]
    assert Lights.ended == ["failed"]
    assert not done.resources.filter(is_held=True).exists()


def test_a_transient_failure_is_tried_again_with_a_higher_attempt(line, zone, actor, fresh):
    flows.met.add("condition")
    line.reply = lambda command: Failure("transient", "busy", "Busy") if command.attempt == 1 else {}
    job = open_job(zone, actor)
    line.run()
    assert fresh(job).attempt == 2
    Job.objects.filter(pk=job.pk).update(waiting={"pause": {"until": 0}})
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.SUCCEEDED
    assert [command.attempt for command in line.seen] == [1, 2]


def test_a_second_job_on_the_resource_is_refused_with_the_first_ones_link(line, zone, actor):
    job = open_job(zone, actor)
    with pytest.raises(Conflict) as refused:
        open_job(zone, actor)
    assert refused.value.extra["job"] == f"/api/v1/jobs/{job.pk}/"
    assert Job.objects.count() == 1


def test_answers_delivered_twice_or_late_change_nothing(line, zone, actor, fresh):
    flows.met.add("condition")
    job = open_job(zone, actor)
    line.run()
    before = fresh(job)
    line.deliver(AGENT, line.seen[0])
    line.run()
    assert fresh(job).finished_at == before.finished_at
    assert Lights.ended == ["succeeded"]


def test_a_lost_command_is_sent_again_with_the_same_key_unless_the_agent_works_on_it(line, zone, actor, fresh):
    flows.met.add("condition")
    job = open_job(zone, actor)
    engine.advance(*line.kicks.pop())
    (_agent, lost) = line.commands.pop()
    sweep.run()
    assert line.commands == []  # the agent is silent: nothing is piled up for it
    line.alive[AGENT] = {"in_work": [lost.key]}
    sweep.run()
    assert line.commands == []
    line.alive[AGENT] = {"in_work": []}
    sweep.run()
    assert [command.key for _, command in line.commands] == [lost.key]
    line.run()
    assert fresh(job).state == JobState.SUCCEEDED


def test_a_lost_kick_and_a_dead_worker_are_made_good_by_the_sweep(line, zone, actor, fresh):
    flows.met.add("condition")
    job = open_job(zone, actor)
    line.kicks.clear()
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() + timedelta(seconds=5), lease_owner="dead")
    sweep.run()
    assert line.kicks == []  # the lease still holds
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.SUCCEEDED


def test_a_step_past_its_deadline_is_aborted_and_undone(line, zone, actor, fresh):
    line.reply = lambda command: None if command.direction == "run" else {}
    job = open_job(zone, actor)
    line.run()
    Job.objects.filter(pk=job.pk).update(step_deadline_at=timezone.now() - timedelta(seconds=1))
    sweep.run()
    line.run()
    done = fresh(job)
    assert (done.state, done.error["code"]) == (JobState.FAILED, "timed_out")
    assert line.aborted == [line.seen[0].key]
    assert flows.world == set()


def test_an_undo_waits_for_a_machine_that_is_away_and_keeps_what_is_reserved(line, zone, actor, fresh):
    flows.met.add("condition")
    flows.broken.add("last")
    line.reply = lambda command: {} if command.direction == "run" else None
    job = open_job(zone, actor)
    line.run()
    assert fresh(job).state == JobState.UNDOING
    assert {"kept", "first", "machine"} <= flows.world
    line.reply = lambda command: {}
    line.alive[AGENT] = {"in_work": []}
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.FAILED
    assert flows.world == set()


def test_an_undo_that_fails_keeps_the_reservation_and_ends_stuck(line, zone, actor, fresh):
    flows.met.add("condition")
    flows.broken.add("last")
    line.reply = lambda command: {} if command.direction == "run" else Failure("failed", "broken", "Broken")
    job = open_job(zone, actor)
    line.run()
    done = fresh(job)
    assert done.state == JobState.STUCK
    assert flows.world == {"kept", "machine"}
    assert [step.state for step in done.steps.all()] == ["kept", "undone", "undo_failed", "undone", "undone"]


def test_cancel_while_a_machine_works_undoes_when_it_answers(line, zone, actor, fresh):
    flows.met.add("condition")
    job = open_job(zone, actor)
    engine.advance(*line.kicks.pop())
    services.cancel(fresh(job), actor=actor)
    assert line.aborted == [line.commands[0][1].key]
    line.reply = lambda command: Failure("aborted", "aborted", "Stopped") if command.direction == "run" else {}
    line.run()
    assert fresh(job).state == JobState.CANCELLED
    assert flows.world == set()
    with pytest.raises(Conflict):
        services.cancel(fresh(job), actor=actor)


def test_cancel_while_waiting_for_a_condition_undoes_at_once(line, zone, actor, fresh):
    job = open_job(zone, actor)
    line.run()
    services.cancel(fresh(job), actor=actor)
    line.run()
    assert fresh(job).state == JobState.CANCELLED
    assert flows.world == set()


@pytest.mark.parametrize("kill_at", range(5))
def test_a_process_that_dies_at_any_step_leaves_a_job_that_goes_on(line, zone, actor, fresh, monkeypatch, kill_at):
    """Dying = the turn's transaction never commits and the lease stays: what a killed worker leaves behind."""
    flows.met.add("condition")
    job = open_job(zone, actor)
    turn, turns = engine._turn, []

    def dying(uuid, owner, queue):
        turns.append(owner)
        return engine.Outcome.LOST if len(turns) == kill_at + 1 else turn(uuid, owner, queue)

    monkeypatch.setattr(engine, "_turn", dying)
    line.run()
    assert fresh(job).state in (JobState.QUEUED, JobState.RUNNING)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    line.alive[AGENT] = {"in_work": []}
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.SUCCEEDED
    assert flows.world == {"kept", "first", "machine", "last"}


def test_what_the_service_booked_is_given_back_by_a_job_that_never_began(line, zone, actor, fresh, monkeypatch):
    monkeypatch.setattr(Lights, "steps", [flows.First, flows.Kept])
    flows.world.add("kept")  # by the service, with the job
    job = open_job(zone, actor)
    services.cancel(job, actor=actor)
    line.run()
    assert fresh(job).state == JobState.CANCELLED
    assert flows.world == set()


def test_a_last_word_that_fails_ends_the_job_as_stuck(line, zone, actor, fresh, monkeypatch):
    def speechless(self, ctx):
        raise RuntimeError("a defect")

    flows.broken.add("first")
    monkeypatch.setattr(Lights, "failed", speechless)
    job = open_job(zone, actor)
    line.run()
    done = fresh(job)
    assert (done.state, done.error["code"]) == (JobState.STUCK, "no_first")
    assert done.finished_at
    assert not done.resources.filter(is_held=True).exists()


def test_a_good_end_that_cannot_be_written_down_is_undone(line, zone, actor, fresh, monkeypatch):
    def speechless(self, ctx):
        raise RuntimeError("a defect")

    flows.met.add("condition")
    monkeypatch.setattr(Lights, "succeeded", speechless)
    job = open_job(zone, actor)
    line.run()
    assert (fresh(job).state, fresh(job).error["code"]) == (JobState.FAILED, "internal_error")
    assert flows.world == set()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(OperationalError("deadlock"), JobState.QUEUED), (IntegrityError("a rule of a table"), JobState.FAILED)],
)
def test_a_database_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    line, zone, actor, fresh, monkeypatch, error, outcome
):
    def fail(self, ctx):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(flows.First, "run", fail)
        job = open_job(zone, actor)
        line.run()
    job = fresh(job)
    assert job.state == (JobState.RUNNING if outcome == JobState.QUEUED else outcome)
    if outcome == JobState.QUEUED:
        flows.met.add("condition")
        Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        sweep.run()
        line.run()
        assert fresh(job).state == JobState.SUCCEEDED


def test_a_broker_that_is_away_delays_the_job_and_nothing_else(line, zone, actor, fresh, monkeypatch):
    def away(*args, **kwargs):
        raise ConnectionError("no broker")

    flows.met.add("condition")
    with monkeypatch.context() as patch:
        patch.setattr(services, "kick", away)
        job = open_job(zone, actor)
        patch.setattr(agents, "send_command", away)
        sweep.run()
        line.run()
        assert (fresh(job).state, line.commands) == (JobState.RUNNING, [])
    line.alive[AGENT] = {"in_work": []}
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.SUCCEEDED
