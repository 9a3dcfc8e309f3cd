"""Draining before an upgrade, and forgetting old jobs."""

from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from cloud.common.actor import Actor
from cloud.common.errors import Unavailable
from cloud.config import services as config
from cloud.jobs import batches, drain, services, sweep
from cloud.jobs.models import CleanUp, Job, JobResource, JobState, JobStep
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import AGENT, Lights
from tests.factories.infra import ZoneFactory

pytestmark = pytest.mark.django_db(transaction=True)
PERSON = Actor(name="somebody", user=uuid4(), grants=frozenset({"*"}), sees_all=True)


@pytest.fixture(autouse=True)
def clean_world():
    flows.reset()
    config.forget()
    yield
    flows.reset()
    config.forget()


def open_job(zone, actor, **more) -> Job:
    with transaction.atomic():
        return services.open(Lights, resource=zone, actor=actor, **more)


def said(*words) -> str:
    out = StringIO()
    call_command("drain", *words, stdout=out)
    return out.getvalue().strip()


def test_people_begin_nothing_new_and_what_has_begun_goes_on(line, zone, actor, fresh):
    assert said() == ""
    job = open_job(zone, PERSON)
    assert said("start") == "draining, 1 job left"
    with pytest.raises(Unavailable) as refused:
        open_job(ZoneFactory(), PERSON)
    assert (refused.value.code, refused.value.status) == ("draining", 503)
    flows.broken.add("first")
    line.run()
    assert fresh(job).state == JobState.FAILED
    assert flows.world == set()
    assert said() == drain.words() == "draining, no jobs left"
    open_job(zone, actor)  # the platform itself, which mends what must be mended
    assert said("stop") == ""
    open_job(ZoneFactory(), PERSON)


def test_old_jobs_go_with_all_that_belongs_to_them(line, zone, actor):
    with transaction.atomic():
        parent = services.open_batch("test.lights", actor=actor, count=2)
    children = [open_job(ZoneFactory(), actor, parent=parent) for _ in range(2)]
    kept = open_job(zone, actor)
    line.run()
    Job.objects.update(finished_at=timezone.now() - timedelta(days=89))
    sweep.forget_old()
    assert Job.objects.count() == 4
    Job.objects.exclude(pk=kept.pk).update(finished_at=timezone.now() - timedelta(days=91))
    owed = CleanUp.objects.create(job=children[0], position=2, name="OnMachine", agent=AGENT)
    sweep.forget_old()
    assert set(Job.objects.values_list("pk", flat=True)) == {kept.pk, parent.pk, children[0].pk}
    owed.state = "done"
    owed.save()
    sweep.forget_old()
    assert list(Job.objects.values_list("pk", flat=True)) == [kept.pk]
    for rows in (JobStep, JobResource, CleanUp):
        assert set(rows.objects.values_list("job", flat=True)) <= {kept.pk}


def test_how_long_jobs_are_kept_is_a_setting(line, zone, actor):
    job = open_job(zone, actor)
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - timedelta(days=3))
    sweep.forget_old()
    assert Job.objects.exists()
    config.change("job.kept_for", value=2 * 86400, actor=actor)
    sweep.forget_old()
    assert not Job.objects.exists()


def test_a_batch_at_work_is_cancelled_with_all_that_has_not_ended(line, actor, fresh):
    with transaction.atomic():
        parent = services.open_batch("test.lights", actor=actor, count=3)
        children = [services.open(Lights, resource=ZoneFactory(), actor=actor, parent=parent) for _ in range(3)]
    line.run()  # each waits for its condition
    services.cancel(fresh(parent), actor=actor)
    line.run()
    batches.settle(parent.pk)
    assert [fresh(child).state for child in children] == [JobState.CANCELLED] * 3
    assert (fresh(parent).state, flows.world) == (JobState.CANCELLED, set())
