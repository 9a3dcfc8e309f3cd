"""What is owed by machines that are away: written down, kept, done when they are back, dropped when they are gone."""

import pytest
from django.db import transaction
from django.utils import timezone

from cloud.common.errors import Conflict
from cloud.common.wire import Answer, Failure
from cloud.jobs import cleaning, cleanups, engine, services, sweep
from cloud.jobs.models import CleanUp, Job, JobState
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import AGENT, Lights
from tests.factories.infra import ZoneFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def clean_world():
    flows.reset()
    Lights.ended.clear()
    flows.met.add("condition")
    flows.broken.add("last")
    yield
    flows.reset()


def open_job(zone, actor) -> Job:
    with transaction.atomic():
        return services.open(Lights, resource=zone, actor=actor)


@pytest.fixture
def owing(line, zone, actor):
    """A job that failed after its machine did its part and fell silent: the machine owes an undo."""
    go_away(line)
    job = open_job(zone, actor)
    line.run()
    assert Job.objects.get(pk=job.pk).state == JobState.FAILED
    return job


def go_away(line) -> None:
    """Runs are answered, undos never reach the machine."""
    line.lost.add(AGENT)
    line.reply = lambda command: {} if command.direction == "run" else None


def come_back(line, reply=lambda command: {}) -> None:
    line.lost.clear()
    line.alive[AGENT] = {"in_work": []}
    line.reply = reply


def owed() -> list[tuple[str, str]]:
    return list(CleanUp.objects.values_list("name", "state"))


def undos(line) -> list[str]:
    return [command.key for command in line.seen if command.direction == "undo"]


def expect_paid(job, state=JobState.FAILED) -> None:
    assert {state for _name, state in owed()} == {"done"}
    assert flows.world == set()
    assert Lights.ended == ["failed"]
    assert Job.objects.get(pk=job.pk).state == state
    assert not job.resources.filter(is_held=True).exists()


def test_the_job_ends_and_keeps_what_it_reserved(line, owing, zone, actor):
    assert owed() == [("OnMachine", "owed"), ("Kept", "owed")]
    assert flows.world == {"kept", "machine"}
    assert Lights.ended == []
    assert undos(line) == []
    assert [step.state for step in owing.steps.all()] == ["owed", "undone", "owed", "undone", "undone"]
    with pytest.raises(Conflict) as refused:
        open_job(zone, actor)
    assert (refused.value.code, refused.value.extra["machines"]) == ("clean_up_pending", ["the machine"])
    assert refused.value.extra["job"] == f"/api/v1/jobs/{owing.pk}/"


def test_a_machine_that_stays_away_is_not_asked_and_nothing_is_forgotten(line, owing, actor):
    Job.objects.filter(pk=owing.pk).update(finished_at=timezone.now() - timezone.timedelta(days=1000))
    for _ in range(3):
        sweep.run()
        line.run()
    sweep.forget_old()
    assert (undos(line), flows.world, len(owed())) == ([], {"kept", "machine"}, 2)


def test_a_machine_that_is_back_cleans_up_and_control_gives_back(line, owing, zone, actor):
    come_back(line)
    cleaning.agent_back(AGENT)
    line.run()
    expect_paid(owing)
    assert undos(line) == [f"{owing.pk}:2:undo:1"]
    open_job(zone, actor)


def test_the_sweep_alone_is_enough(line, owing):
    """Nobody told that the machine is back: control was restarted meanwhile."""
    come_back(line)
    sweep.run()
    line.run()
    expect_paid(owing)


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(line, owing):
    come_back(line, lambda command: None)
    sweep.run()
    line.run()
    line.alive[AGENT] = {"in_work": [f"{owing.pk}:2:undo:1"]}
    sweep.run()
    line.run()
    assert undos(line) == [f"{owing.pk}:2:undo:1"]  # it works on it
    come_back(line)
    sweep.run()
    line.run()
    assert undos(line) == [f"{owing.pk}:2:undo:1"] * 2
    expect_paid(owing)


def test_answers_that_come_twice_or_from_another_change_nothing(line, owing):
    come_back(line, lambda command: None)
    sweep.run()
    line.run()
    key = line.seen[-1].key
    engine.answer(Answer(key, "22222222-2222-4222-8222-222222222222").to_document())
    engine.answer(Answer(key.replace("undo:1", "undo:2"), AGENT).to_document())
    assert owed() == [("OnMachine", "owed"), ("Kept", "owed")]
    engine.answer(Answer(key, AGENT).to_document())
    engine.answer(Answer(key, AGENT, failure=Failure("failed", "late", "late")).to_document())
    expect_paid(owing)


def test_an_undo_sent_before_the_machine_was_lost_is_the_same_command(line, zone, actor):
    """It lies in the machine's queue: found and answered late, it is the row's."""
    line.reply = lambda command: {} if command.direction == "run" else None
    line.alive[AGENT] = {"in_work": []}
    job = open_job(zone, actor)
    line.run()
    sent = line.seen[-1].key
    line.alive.clear()
    line.lost.add(AGENT)
    sweep.run()
    line.run()
    assert (Job.objects.get(pk=job.pk).state, owed()[0]) == (JobState.FAILED, ("OnMachine", "owed"))
    engine.answer(Answer(sent, AGENT).to_document())
    expect_paid(job)


def test_what_is_gone_already_is_cleaned_up(line, owing):
    come_back(line, lambda command: Failure("not_found", "gone", "gone"))
    sweep.run()
    line.run()
    expect_paid(owing)


def test_a_machine_that_is_not_able_yet_is_asked_again_after_a_while(line, owing):
    answers = [Failure("transient", "busy", "not yet")] * 2
    come_back(line, lambda command: answers.pop() if answers else {})
    for _ in range(2):
        sweep.run()
        line.run()
        row = CleanUp.objects.get(name="OnMachine")
        assert timezone.now() < row.due_at < timezone.now() + timezone.timedelta(seconds=31)
        sweep.run()
        line.run()
        CleanUp.objects.filter(pk=row.pk).update(due_at=timezone.now())
    sweep.run()
    line.run()
    expect_paid(owing)
    assert [key.rpartition(":")[2] for key in undos(line)] == ["1", "2", "3"]


def test_a_machine_that_refuses_leaves_the_job_to_a_person_and_holds_nobody_up(line, owing, zone, actor):
    come_back(line, lambda command: Failure("failed", "broken", "Broken"))
    sweep.run()
    line.run()
    done = Job.objects.get(pk=owing.pk)
    assert done.state == JobState.STUCK
    assert owed() == [("OnMachine", "failed"), ("Kept", "failed")]
    assert CleanUp.objects.get(name="OnMachine").error["code"] == "broken"
    assert flows.world == {"kept", "machine"}
    assert Lights.ended == ["failed"]
    flows.broken.clear()
    line.reply = lambda command: {}
    again = open_job(zone, actor)
    line.run()
    assert Job.objects.get(pk=again.pk).state == JobState.SUCCEEDED


def test_a_machine_taken_out_of_the_cloud_owes_nothing(line, owing):
    line.gone.add(AGENT)
    sweep.run()
    line.run()
    flows.world.discard("machine")  # nobody switches that off any more
    expect_paid(owing)
    assert (undos(line), CleanUp.objects.get(name="OnMachine").error["code"]) == ([], "machine_gone")


def test_killed_while_giving_back(line, owing, monkeypatch):
    """The process dies in the release: what was done with it in the same transaction did not happen."""
    come_back(line)

    class Killed(BaseException):
        pass

    def die(self, ctx):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(flows.Kept, "undo", die)
        sweep.run()
        with pytest.raises(Killed):
            line.run()
    assert owed() == [("OnMachine", "done"), ("Kept", "owed")]
    assert "kept" in flows.world
    sweep.run()
    line.run()
    expect_paid(owing)


def test_a_release_that_fails_keeps_the_rest_and_says_so(line, owing, monkeypatch):
    come_back(line)

    def fail(self, ctx):
        raise RuntimeError("a defect")

    monkeypatch.setattr(flows.Kept, "undo", fail)
    sweep.run()
    line.run()
    assert owed() == [("OnMachine", "done"), ("Kept", "failed")]
    assert Job.objects.get(pk=owing.pk).state == JobState.STUCK
    assert Lights.ended == ["failed"]


def test_nothing_new_begins_on_the_machine_before(line, owing, actor):
    flows.broken.clear()
    come_back(line, lambda command: None)
    other = open_job(ZoneFactory(), actor)
    sweep.run()
    line.run()
    waiting = Job.objects.get(pk=other.pk)
    assert (list(waiting.waiting), waiting.step_deadline_at) == ([f"cleaned:{AGENT}"], None)
    assert line.names()[1:] == ["test.dark undo"]
    line.reply = lambda command: {}
    engine.answer(Answer(line.seen[-1].key, AGENT).to_document())
    line.run()
    assert line.names()[1:] == ["test.dark undo", "test.light run"]
    assert Job.objects.get(pk=other.pk).state == JobState.SUCCEEDED


def test_two_jobs_owe_on_one_machine(line, owing, actor):
    second = open_job(ZoneFactory(), actor)
    # It is asked to clean up for the first job before it may begin with the second: that one waits, and is given up.
    line.run()
    services.cancel(second, actor=actor)
    line.run()
    assert CleanUp.objects.owed().filter(agent=AGENT).count() == 2
    come_back(line)
    sweep.run()
    line.run()
    assert {state for _name, state in owed()} == {"done"}
    assert undos(line) == [f"{owing.pk}:2:undo:1", f"{second.pk}:2:undo:1"]
    assert Lights.ended == ["failed", "failed"]


def test_the_job_tells_what_it_owes(line, owing, admin):
    found = admin.get(f"/api/v1/jobs/{owing.pk}/").json()
    assert found["clean_ups"][0] == {
        "step": "On the machine",
        "machine": "the machine",
        "state": "owed",
        "error": None,
    }
    assert found["clean_ups"][1]["step"] == "A reservation"


class Earlier(flows.OnMachine):
    """A step of the same machine that was done before the one that is owed."""

    label = "Earlier on the machine"

    def undo_answered(self, ctx, body):
        assert "machine" not in flows.world
        flows.world.add("in order")


def test_what_is_owed_is_done_in_order_though_the_machine_is_back_at_once(line, zone, actor, monkeypatch):
    """It comes back between two of its undos: the second waits for the first, which is owed."""
    monkeypatch.setattr(Lights, "steps", [flows.Kept, Earlier, flows.OnMachine, flows.Last])
    go_away(line)
    owe = cleanups.owe

    def owe_and_be_back(*args, **kwargs):
        owe(*args, **kwargs)
        come_back(line)

    monkeypatch.setattr(cleanups, "owe", owe_and_be_back)
    job = open_job(zone, actor)
    line.run()
    assert undos(line) == [f"{job.pk}:2:undo:1", f"{job.pk}:1:undo:1"]
    assert flows.world == {"in order"}
    assert Job.objects.get(pk=job.pk).state == JobState.FAILED
