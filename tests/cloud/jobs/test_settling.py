"""What is stuck is listed, and settled by a person who has looked at it: nothing in use is freed."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from cloud.common.errors import Conflict
from cloud.events.models import AuditRecord
from cloud.infra.models import Host, Zone
from cloud.jobs import estimates, services, settling
from cloud.jobs.models import Job, JobResource, JobState, JobStep
from compute.models import Instance
from tests.base.api import Problems
from tests.base.clients import Client, member_client
from tests.cloud.jobs import flows
from tests.cloud.jobs.flows import Lights
from tests.factories.compute import InstanceFactory
from tests.factories.infra import HostFactory, ZoneFactory
from tests.factories.storage import ImageFactory, PrimaryStorageFactory, VolumeFactory

STUCK = "/api/v1/stuck/"


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "kick", lambda job, queue="control": None)
    flows.reset()
    estimates.forget()


def stuck_job(admin: Client, zone: Zone | None = None) -> Job:
    """One whose machine would not take its part back, so that its reservation stayed."""
    with transaction.atomic():
        job = services.open(Lights, resource=zone or ZoneFactory(), actor=admin.actor)
    Job.objects.filter(pk=job.pk).update(state=JobState.STUCK, finished_at=timezone.now())
    JobResource.objects.update(is_held=False)
    JobStep.objects.filter(job=job, name="OnMachine").update(state="undo_failed")
    JobStep.objects.filter(job=job, name="Kept").update(state="kept")
    flows.world.update({"kept", "machine"})
    job.refresh_from_db()
    return job


@pytest.mark.django_db
class TestList(Problems):
    def test_an_activity_without_a_job(self, admin: Client) -> None:
        lost = InstanceFactory(activity="starting")
        host, image = HostFactory(activity="adding"), ImageFactory(activity="adding")
        InstanceFactory()
        body = admin.get(STUCK).json()
        assert {(row["kind"], row["uuid"], row["code"]) for row in body["results"]} == {
            ("instance", str(lost.pk), "no_job"),
            ("host", str(host.pk), "no_job"),
            ("image", str(image.pk), "no_job"),
        }
        row = next(row for row in body["results"] if row["kind"] == "instance")
        assert row["settle"] == f"/api/v1/instances/{lost.pk}/settle-state/"
        assert (row["activity"], row["job"]) == ("starting", None)
        assert (body["count"], body["next"]) == (3, None)
        assert [each["kind"] for each in admin.get(STUCK, {"kind": "host"}).json()["results"]] == ["host"]

    def test_a_job_past_its_deadline(self, admin: Client) -> None:
        host = HostFactory(activity="adding")
        job = Job.objects.create(workflow="host.add", resource_type="infra.Host", resource_uuid=host.pk)
        JobResource.objects.create(job=job, resource_type="infra.Host", resource_uuid=host.pk)
        assert admin.get(STUCK).json()["count"] == 0
        Job.objects.update(step_deadline_at=timezone.now() - timedelta(minutes=2))
        (row,) = admin.get(STUCK).json()["results"]
        assert (row["code"], row["job"]) == ("past_deadline", f"/api/v1/jobs/{job.pk}/")

    def test_a_stuck_job(self, admin: Client) -> None:
        job = stuck_job(admin)
        (row,) = admin.get(STUCK).json()["results"]
        assert (row["kind"], row["code"], row["settle"]) == ("job", "job_stuck", f"/api/v1/jobs/{job.pk}/settle/")

    def test_rights(self, admin: Client) -> None:
        assert member_client("auditor").get(STUCK).status_code == 200
        self.assert_problem(member_client("account_admin").get(STUCK), 403, "not_permitted")
        self.assert_problem(admin.get(STUCK, {"nonsense": 1}), 400)


@pytest.mark.django_db
class TestResources(Problems):
    def settle(self, client: Client, prefix: str, row: Any) -> Any:
        return client.post(f"/api/v1/{prefix}/{row.pk}/settle-state/", {})

    @pytest.mark.parametrize(
        ("prefix", "factory", "fields", "after"),
        [
            ("hosts", HostFactory, {"state": "new", "activity": "adding"}, "ready"),
            ("primary-storages", PrimaryStorageFactory, {"state": "deleting", "activity": "deleting"}, "ready"),
            ("images", ImageFactory, {"state": "downloading", "activity": "adding", "content_sha256": ""}, "error"),
            ("images", ImageFactory, {"state": "deleted", "activity": "expunging"}, "deleted"),
            ("volumes", VolumeFactory, {"state": "ready", "activity": "growing"}, "ready"),
        ],
    )
    def test_its_mark_is_taken_off(
        self, admin: Client, prefix: str, factory: Any, fields: dict[str, Any], after: str
    ) -> None:
        row = factory(**fields)
        job = Job.objects.create(workflow="x", state=JobState.FAILED, finished_at=timezone.now())
        JobResource.objects.create(job=job, resource_type=row._meta.label, resource_uuid=row.pk)
        response = self.settle(admin, prefix, row)
        assert response.status_code == 200, response.content
        assert (response.json()["state"], response.json()["activity"]) == (after, "")
        assert not JobResource.objects.filter(is_held=True).exists()
        record = AuditRecord.objects.get(action="state.settle")
        assert record.detail["before"]["activity"] == fields["activity"]
        assert record.detail["after"] == {**record.detail["before"], "state": after, "activity": ""}

    def test_not_while_a_job_is_at_work(self, admin: Client) -> None:
        host = HostFactory(activity="adding")
        job = Job.objects.create(workflow="host.add")
        JobResource.objects.create(job=job, resource_type="infra.Host", resource_uuid=host.pk)
        problem = self.assert_problem(self.settle(admin, "hosts", host), 409, "busy")
        assert problem["job"] == f"/api/v1/jobs/{job.pk}/"
        assert Host.objects.get().activity == "adding"

    def test_by_administrators_only(self, admin: Client) -> None:
        owner = member_client("account_admin")
        instance = InstanceFactory(project=owner.project, activity="starting")
        self.assert_problem(self.settle(owner, "instances", instance), 403, "not_permitted")
        assert Instance.objects.get().activity == "starting"


@pytest.mark.django_db
class TestJobs(Problems):
    def look(self, admin: Client, job: Job) -> dict[str, Any]:
        response = admin.post(f"/api/v1/jobs/{job.pk}/settle/?dry_run=1", {})
        assert response.status_code == 200, response.content
        body: dict[str, Any] = response.json()
        return body

    def test_after_a_look(self, admin: Client) -> None:
        job = stuck_job(admin)
        path = f"/api/v1/jobs/{job.pk}/settle/"
        self.assert_problem(admin.post(path, {}), 428, "preview_required")
        seen = self.look(admin, job)
        assert {(effect["kind"], effect["effect"]) for effect in seen["effects"]} == {
            ("step.OnMachine", "unknown"),
            ("step.Kept", "released"),
        }
        assert "kept" in flows.world
        body = admin.post(path, {}, headers={"X-Preview-Token": seen["token"]}).json()
        assert (body["state"], body["settled_by"]) == ("stuck", admin.actor.name)
        assert body["settled_at"]
        assert flows.world == {"machine"}
        assert admin.get(STUCK).json()["count"] == 0
        assert AuditRecord.objects.get(action="job.settle").detail["effects"]
        self.assert_problem(admin.post(f"{path}?dry_run=1", {}), 409, "already_settled")

    def test_what_a_later_job_works_with_stays(self, admin: Client) -> None:
        zone = ZoneFactory()
        job = stuck_job(admin, zone)
        later = Job.objects.create(workflow="x", resource_uuid=zone.pk, state=JobState.SUCCEEDED)
        seen = self.look(admin, job)
        assert ("step.Kept", "stays") in {(effect["kind"], effect["effect"]) for effect in seen["effects"]}
        later.delete()
        response = admin.post(f"/api/v1/jobs/{job.pk}/settle/", {}, headers={"X-Preview-Token": seen["token"]})
        self.assert_problem(response, 409, "preview_stale")
        assert "kept" in flows.world

    def test_what_runs_keeps_what_it_has(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        job = stuck_job(admin)
        monkeypatch.setattr(settling, "_in_use", [lambda row: "It runs on host-1."])
        seen = self.look(admin, job)
        assert any("It runs on host-1." in effect["text"] for effect in seen["effects"])
        admin.post(f"/api/v1/jobs/{job.pk}/settle/", {}, headers={"X-Preview-Token": seen["token"]})
        assert flows.world == {"kept", "machine"}
        assert JobStep.objects.get(job=job, name="Kept").state == "kept"

    def test_when_nobody_knows(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        job = stuck_job(admin)
        monkeypatch.setattr(settling, "_in_use", [lambda row: Conflict("Nobody knows.", code="unknown_state")])
        response = admin.post(f"/api/v1/jobs/{job.pk}/settle/?dry_run=1", {})
        self.assert_problem(response, 409, "unknown_state")

    def test_one_that_is_not_stuck(self, admin: Client) -> None:
        job = stuck_job(admin)
        Job.objects.update(state=JobState.FAILED)
        self.assert_problem(admin.post(f"/api/v1/jobs/{job.pk}/settle/", {}), 409, "wrong_state")


@pytest.mark.django_db
class TestEstimates:
    def history(self, admin: Client, *seconds: float) -> None:
        """Jobs that succeeded, each with this many seconds for each step."""
        begun = timezone.now() - timedelta(hours=1)
        for took in seconds:
            with transaction.atomic():
                job = services.open(Lights, resource=ZoneFactory(), actor=admin.actor)
            Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED, finished_at=begun)
            job.steps.update(state="succeeded", started_at=begun, finished_at=begun + timedelta(seconds=took))

    def running(self, admin: Client, cursor: int, ago_s: float) -> Job:
        with transaction.atomic():
            job = services.open(Lights, resource=ZoneFactory(), actor=admin.actor)
        since = timezone.now() - timedelta(seconds=ago_s)
        Job.objects.filter(pk=job.pk).update(state=JobState.RUNNING, cursor=cursor, started_at=since)
        job.steps.filter(position=cursor).update(state="running", started_at=since)
        return job

    def test_from_the_history_of_its_kind(self, admin: Client) -> None:
        job = self.running(admin, 2, 4.0)
        assert admin.get(f"/api/v1/jobs/{job.pk}/").json()["eta_s"] is None
        self.history(admin, 10.0, 10.0, 90.0)
        estimates.forget()
        assert admin.get(f"/api/v1/jobs/{job.pk}/").json()["eta_s"] in range(20, 27)
        listed = admin.get("/api/v1/jobs/", {"state": "running"}).json()["results"]
        assert next(row["eta_s"] for row in listed) in range(20, 27)
        assert {row["eta_s"] for row in admin.get("/api/v1/jobs/", {"state": "succeeded"}).json()["results"]} == {None}

    def test_from_the_bytes_that_are_left(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        from cloud.jobs import agents

        self.history(admin, 1.0)
        job = self.running(admin, 2, 10.0)
        said = {"percent": 25.0, "text": "", "bytes_done": 1000, "bytes_total": 4000}
        monkeypatch.setattr(agents, "progress", lambda keys: dict.fromkeys(keys, said))
        Job.objects.filter(pk=job.pk).update(waiting={f"{job.pk}:2:run:1": {"agent": flows.AGENT, "sent_at": 0}})
        body = admin.get(f"/api/v1/jobs/{job.pk}/").json()
        assert 30 <= body["eta_s"] <= 90  # 3,000 bytes at 100 a second, and two steps of a second
        assert 10 <= body["bytes_per_s"] <= 100
        assert body["progress"] == said

    def test_of_many(self, admin: Client) -> None:
        with transaction.atomic():
            parent = services.open_batch("test.lights", actor=admin.actor, count=4)
        Job.objects.update(percent=25.0, started_at=timezone.now() - timedelta(seconds=10))
        assert admin.get(f"/api/v1/jobs/{parent.pk}/").json()["eta_s"] in range(30, 60)
