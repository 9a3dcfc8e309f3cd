"""What makes good anything lost; slow steps; jobs side by side."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from cloud.common.errors import Conflict
from cloud.jobs import agents, engine, leases, services, sweep
from cloud.jobs.models import Job, JobState
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import AGENT, Lights
from tests.factories.infra import ZoneFactory
from tests.factories.storage import BackupStorageFactory

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


class TestSweep:
    def test_one_jobs_trouble_does_not_keep_the_others_waiting(self, line, zone, actor, fresh):
        flows.met.add("condition")
        lost, job = open_job(zone, actor), open_job(ZoneFactory(), actor)
        Job.objects.filter(pk=lost.pk).update(workflow="long.gone")
        line.kicks.clear()
        sweep.run()
        line.run()
        assert fresh(job).state == JobState.SUCCEEDED

    def test_what_need_not_be_asked_any_more_is_passed_over(self, line, zone, actor, fresh, monkeypatch):
        """The command was lost, and meanwhile another job has done what it was about."""
        flows.met.add("condition")
        line.alive[AGENT] = {"in_work": []}
        job = open_job(zone, actor)
        engine.advance(*line.kicks.pop())
        line.commands.clear()
        monkeypatch.setattr(flows.OnMachine, "ask", lambda self, ctx: None)
        sweep.run()
        line.run()
        assert fresh(job).state == JobState.SUCCEEDED
        assert fresh(job).steps.get(position=2).state == "skipped"

    def test_what_can_no_longer_be_asked_fails_the_job_with_the_reason(self, line, zone, actor, fresh, monkeypatch):
        def refuse(self, ctx):
            raise Conflict("the image server went away", code="image_server_away")

        line.alive[AGENT] = {"in_work": []}
        job = open_job(zone, actor)
        engine.advance(*line.kicks.pop())
        line.commands.clear()
        with monkeypatch.context() as patch:
            patch.setattr(flows.OnMachine, "ask", refuse)
            sweep.run()
            line.run()
        assert (fresh(job).state, fresh(job).error["code"]) == (JobState.FAILED, "image_server_away")
        assert flows.world == set()

    def test_what_was_sent_just_now_is_not_sent_again(self, line, zone, actor, settings):
        settings.MICA = {**settings.MICA, "resend_after_s": 60.0}
        line.alive[AGENT] = {"in_work": []}
        open_job(zone, actor)
        engine.advance(*line.kicks.pop())
        line.commands.clear()
        sweep.run()
        assert line.commands == []

    def test_old_jobs_are_forgotten_and_live_ones_are_not(self, line, zone, actor):
        open_job(zone, actor)
        sweep.forget_old()
        assert Job.objects.count() == 1
        old = timezone.now() - timedelta(days=91)
        Job.objects.update(finished_at=old)
        sweep.forget_old()
        assert not Job.objects.exists()


class TestSlowSteps:
    """Steps that speak SSH: outside transactions, on their own queue, seen at work while they run."""

    @pytest.fixture
    def slow(self, monkeypatch):
        seen = []

        class Slow(flows.First):
            is_slow = True
            queue = "control.ssh"

            def run(self, ctx):
                job = Job.objects.get(pk=ctx.job.pk)
                seen.append((job.state, job.steps.get(position=0).state, connection.in_atomic_block))
                super().run(ctx)

        monkeypatch.setattr(Lights, "steps", [Slow, flows.Last])
        return seen

    def test_seen_at_work_on_its_queue(self, line, zone, actor, fresh, slow):
        job = open_job(zone, actor)
        assert line.kicks == [(job.pk, "control.ssh")]
        line.run()
        assert slow == [("running", "running", False)]
        assert (fresh(job).state, fresh(job).context["left"]) == (JobState.SUCCEEDED, "a note")
        assert fresh(job).started_at

    def test_not_begun_once_the_job_is_given_up(self, line, zone, actor, fresh, slow):
        job = open_job(zone, actor)
        services.cancel(job, actor=actor)
        line.run()
        assert (fresh(job).state, slow) == (JobState.CANCELLED, [])

    def test_another_queues_worker_hands_it_over(self, line, zone, actor, fresh, slow):
        job = open_job(zone, actor)
        line.kicks[:] = [(job.pk, "control")]
        engine.advance(*line.kicks.pop())
        assert (slow, line.kicks, fresh(job).lease_owner) == ([], [(job.pk, "control.ssh")], "")


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://127.0.0.1:6379/0", "rediss://10.0.0.1:6379/0"])
def test_redis_is_reached_by_socket_and_by_address(settings, url):
    settings.REDIS_URL = url
    agents.redis.cache_clear()
    try:
        assert agents.redis().connection_pool.make_connection()
    finally:
        agents.redis.cache_clear()


def test_two_workers_never_have_the_same_job(line, zone, actor):
    job = open_job(zone, actor)
    assert leases.take(job.pk, "one")
    assert not leases.take(job.pk, "two")
    leases.release(job.pk, "two")
    assert not leases.take(job.pk, "two")
    leases.release(job.pk, "one")
    assert leases.take(job.pk, "two")


def test_a_resource_says_which_job_is_at_work_on_it(line, actor):
    server = BackupStorageFactory()
    with transaction.atomic():
        job = services.open(Lights, resource=server, actor=actor)
    server.refresh_from_db()
    assert server.activity == "switching"
    with pytest.raises(Conflict) as caught:
        server.expect_state("ready")
    assert (caught.value.code, caught.value.extra["job"]) == ("busy", f"/api/v1/jobs/{job.pk}/")
    assert services.at_work_on(server.pk) == f"/api/v1/jobs/{job.pk}/"
    assert services.at_work_on(job.pk) is None


def test_several_resources_are_held_together_or_not_at_all(line, zone, actor):
    other, third = ZoneFactory(), ZoneFactory()
    with transaction.atomic():
        services.open(Lights, resource=zone, resources=[other], actor=actor)
    with pytest.raises(Conflict), transaction.atomic():
        services.open(Lights, resource=third, resources=[other], actor=actor)
    assert services.at_work_on(third.pk) is None
