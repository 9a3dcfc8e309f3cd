"""Machines that fall silent, cannot yet, answer for others, or say what no database keeps."""

import time

import pytest

from cloud.common.wire import Answer, Failure
from cloud.jobs import agents, engine, services, sweep
from cloud.jobs.commands import AGENT_LOST_AFTER_S, RETRY_PAUSE_S
from cloud.jobs.models import Job, JobState
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import AGENT
from tests.cloud.jobs.test_engine import clean_world as _clean_world  # noqa: F401
from tests.cloud.jobs.test_engine import open_job

pytestmark = pytest.mark.django_db(transaction=True)


def asked_long_ago(job: Job) -> None:
    waiting = Job.objects.get(pk=job.pk).waiting
    long_ago = time.time() - AGENT_LOST_AFTER_S - 1
    Job.objects.filter(pk=job.pk).update(waiting={key: {**held, "sent_at": long_ago} for key, held in waiting.items()})


def test_a_machine_that_is_lost_turns_its_job_round(line, zone, actor, fresh):
    line.reply = lambda command: None
    job = open_job(zone, actor)
    line.run()
    asked_long_ago(job)
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.RUNNING  # asked long ago, and nobody says that the machine is away
    line.lost.add(AGENT)
    sweep.run()
    line.run()
    turned = fresh(job)
    assert (turned.state, turned.error["code"]) == (JobState.FAILED, "agent_lost")
    assert line.aborted == [line.seen[0].key]
    assert "kept" in flows.world
    line.reply = lambda command: {}
    line.alive[AGENT] = {"in_work": []}
    line.lost.clear()
    sweep.run()
    line.run()
    assert (fresh(job).state, flows.world) == (JobState.FAILED, set())


def test_a_machine_that_speaks_is_not_lost_however_long_it_works(line, zone, actor, fresh):
    line.reply = lambda command: None
    job = open_job(zone, actor)
    line.run()
    asked_long_ago(job)
    line.alive[AGENT] = {"in_work": [line.seen[0].key]}
    sweep.run()
    line.run()
    assert fresh(job).state == JobState.RUNNING


def test_nobody_is_lost_while_redis_itself_is_away(monkeypatch):
    def away(agent):
        raise agents.redis_client.ConnectionError("away")

    monkeypatch.setattr(agents, "heartbeat", away)
    assert agents.is_alive(AGENT)


def test_an_undo_is_tried_for_as_long_as_the_machine_is_not_able_yet(line, zone, actor, fresh):
    flows.met.add("condition")
    flows.broken.add("last")
    answers = [Failure("transient", "busy", "not yet")] * 6
    line.reply = lambda command: {} if command.direction == "run" or not answers else answers.pop()
    job = open_job(zone, actor)
    line.run()
    for _ in range(6):
        assert fresh(job).state == JobState.UNDOING
        assert fresh(job).waiting["pause"]["until"] <= time.time() + 31
        Job.objects.filter(pk=job.pk).update(waiting={"pause": {"until": 0}})
        sweep.run()
        line.run()
    assert (fresh(job).state, flows.world) == (JobState.FAILED, set())
    undos = [command.attempt for command in line.seen if command.direction == "undo"]
    assert undos == list(range(1, 8))


def test_a_pause_is_kept(line, zone, actor, fresh):
    line.reply = lambda command: Failure("transient", "busy", "not yet")
    job = open_job(zone, actor)
    line.run()
    until = fresh(job).waiting["pause"]["until"]
    assert 0 < until - time.time() <= RETRY_PAUSE_S
    sweep.run()
    line.run()
    assert (len(line.seen), fresh(job).waiting["pause"]["until"]) == (1, until)


def test_answers_for_another_agent_are_not_heard(line, zone, actor, fresh):
    line.reply = lambda command: None
    job = open_job(zone, actor)
    line.run()
    engine.answer(Answer(line.seen[0].key, "22222222-2222-4222-8222-222222222222", {}).to_document())
    line.run()
    assert fresh(job).cursor == 2
    assert not any("answer" in held for held in fresh(job).waiting.values())


def test_what_no_database_keeps_is_kept_without_it(line, zone, actor, fresh):
    line.reply = lambda command: Failure("rejected", "odd", "a\x00b\ud800c") if command.direction == "run" else {}
    job = open_job(zone, actor)
    line.run()
    done = fresh(job)
    assert (done.state, done.error["code"]) == (JobState.FAILED, "odd")
    assert "\x00" not in str(done.error)


def test_a_cancelled_job_says_so_whatever_its_step_made_of_it(line, zone, actor, fresh):
    flows.met.add("condition")
    job = open_job(zone, actor)
    engine.advance(*line.kicks.pop())
    services.cancel(fresh(job), actor=actor)
    line.reply = lambda command: Failure("failed", "broken", "half-way") if command.direction == "run" else {}
    line.run()
    assert (fresh(job).state, fresh(job).error["code"]) == (JobState.CANCELLED, "cancelled")
