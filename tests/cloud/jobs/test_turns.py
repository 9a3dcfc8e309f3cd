"""Several steps in one turn; jobs whose workflow was changed by an upgrade; what a create costs."""

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from cloud.common.wire import Failure
from cloud.jobs import engine, services, sweep, words
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
        return services.open(Lights, resource=zone, actor=actor)


def states(job) -> list[str]:
    return list(job.steps.values_list("state", flat=True))


class TestTogether:
    """As the engine really runs: steps of rows follow each other in one transaction."""

    @pytest.fixture(autouse=True)
    def _together(self, line, monkeypatch):
        monkeypatch.setattr(engine, "STEPS_A_TURN", 12)

    def test_steps_of_rows_are_one_transaction(self, line, zone, actor, fresh):
        flows.met.add("condition")
        job = open_job(zone, actor)
        for expected in (["succeeded", "succeeded", "running", "queued", "queued"], ["succeeded"] * 5):
            with CaptureQueriesContext(connection) as said:
                engine.advance(*line.kicks.pop()) if line.kicks else line.run()
            assert [query["sql"] for query in said if query["sql"] == "COMMIT"] == ["COMMIT"]
            assert states(job) == expected
        done = fresh(job)
        assert (done.state, done.percent, done.context["left"]) == (JobState.SUCCEEDED, 100, "a note")
        assert all(step.started_at and step.finished_at for step in done.steps.all())

    @pytest.mark.parametrize("breach", ["first", "last", "machine"])
    def test_a_failure_keeps_what_was_done_before_it(self, line, zone, actor, fresh, breach):
        flows.met.add("condition")
        flows.broken.add(breach)
        if breach == "machine":
            line.reply = lambda command: Failure("rejected", "no", "no") if command.direction == "run" else {}
        job = open_job(zone, actor)
        line.run()
        done = fresh(job)
        position = {"first": 1, "machine": 2, "last": 4}[breach]
        assert (done.state, flows.world) == (JobState.FAILED, set())
        assert done.steps.get(position=position).error["code"] == done.error["code"]
        assert states(job) == ["undone"] * (position + 1) + ["queued"] * (4 - position)

    def test_a_deadlock_costs_nothing_but_time(self, line, zone, actor, fresh, monkeypatch):
        def deadlock(self, ctx):
            raise OperationalError("deadlock detected")

        flows.met.add("condition")
        with monkeypatch.context() as patch:
            patch.setattr(flows.First, "run", deadlock)
            job = open_job(zone, actor)
            line.run()
        assert (fresh(job).state, fresh(job).cursor, fresh(job).lease_owner) == (JobState.QUEUED, 0, "")
        sweep.run()
        line.run()
        assert fresh(job).state == JobState.SUCCEEDED

    def test_an_answer_is_kept_when_what_follows_fails(self, line, zone, actor, fresh, monkeypatch):
        """The database fails in the steps after the answer: the machine need not be asked again."""

        def deadlock(self, ctx):
            raise OperationalError("deadlock detected")

        flows.met.add("condition")
        with monkeypatch.context() as patch:
            patch.setattr(flows.Last, "run", deadlock)
            job = open_job(zone, actor)
            line.run()
        kept = fresh(job)
        assert (kept.state, kept.cursor) == (JobState.RUNNING, 2)
        assert "answer" in kept.waiting[line.seen[0].key]
        sweep.run()
        line.run()
        assert (fresh(job).state, len(line.seen)) == (JobState.SUCCEEDED, 1)


class Between(flows.First):
    """A step that an upgrade put before the one on the machine."""

    def run(self, ctx):
        flows.world.add("between")


class TestUpgrades:
    def at_work_on_the_machine(self, line, zone, actor) -> Job:
        line.reply = lambda command: None
        job = open_job(zone, actor)
        line.run()
        assert Job.objects.get(pk=job.pk).cursor == 2
        return job

    def go_on(self, line) -> None:
        flows.met.add("condition")
        line.reply = lambda command: {}
        line.alive[AGENT] = {"in_work": []}
        sweep.run()
        line.run()

    def test_a_step_put_in_is_for_later_jobs(self, line, zone, actor, fresh, monkeypatch):
        job = self.at_work_on_the_machine(line, zone, actor)
        monkeypatch.setattr(Lights, "steps", [flows.Kept, Between, *Lights.steps[1:]])
        assert words.step_label(fresh(job)) == "On the machine"
        self.go_on(line)
        assert (fresh(job).state, states(job)) == (JobState.SUCCEEDED, ["succeeded"] * 5)
        assert flows.world == {"kept", "first", "machine", "last"}
        assert [command.key for command in line.seen] == [f"{job.pk}:2:run:1"] * 2
        later = open_job(zone, actor)
        line.run()
        assert len(states(later)) == 6
        assert "between" in flows.world

    def test_jobs_opened_before_plans_were_kept_follow_their_steps(self, line, zone, actor, fresh, monkeypatch):
        job = self.at_work_on_the_machine(line, zone, actor)
        Job.objects.filter(pk=job.pk).update(plan=[])
        monkeypatch.setattr(Lights, "steps", [flows.Kept, Between, *Lights.steps[1:]])
        self.go_on(line)
        assert (fresh(job).state, flows.world) == (JobState.SUCCEEDED, {"kept", "first", "machine", "last"})

    def test_a_step_taken_out_is_done_and_undone_while_it_is_known(self, line, zone, actor, fresh, monkeypatch):
        job = self.at_work_on_the_machine(line, zone, actor)
        flows.broken.add("last")
        monkeypatch.setattr(Lights, "steps", [flows.Kept, flows.OnMachine, flows.Last])
        monkeypatch.setattr(Lights, "former", [flows.First, flows.Condition])
        self.go_on(line)
        assert (fresh(job).state, flows.world) == (JobState.FAILED, set())

    def test_a_step_that_nobody_knows_any_more_fails_the_job_for_a_person_to_see(
        self, line, zone, actor, fresh, monkeypatch
    ):
        job = self.at_work_on_the_machine(line, zone, actor)
        monkeypatch.setattr(Lights, "steps", [flows.Kept, flows.First, flows.OnMachine, flows.Last])
        self.go_on(line)
        done = fresh(job)
        assert (done.state, done.error["code"]) == (JobState.STUCK, "unknown_step")
        assert done.steps.get(name="Condition").state == "undo_failed"
        assert flows.world == {"kept"}
