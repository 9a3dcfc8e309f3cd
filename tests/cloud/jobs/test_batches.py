"""Many at once: one parent job, a result for each, and the failed ones tried again."""

import uuid
from typing import Any

import pytest
from django.db import transaction

from cloud.common import batches as door
from cloud.events.models import AuditRecord
from cloud.infra.models import Zone
from cloud.jobs import agents, batches, services, sweep, tasks
from cloud.jobs.models import ItemState, Job, JobItem, JobState
from compute.models import Instance
from tests.base.api import NOBODYS, Problems
from tests.base.clients import Client, member_client
from tests.factories.compute import InstanceFactory
from tests.factories.infra import HostFactory, ZoneFactory

ZONES, INSTANCES, JOBS = "/api/v1/zones/batch/", "/api/v1/instances/batch/", "/api/v1/jobs/"


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "kick", lambda job, queue="control": None)
    monkeypatch.setattr(agents, "abort", lambda keys: None)
    monkeypatch.setattr(agents, "progress", lambda keys: {})


def ask(client: Client, path: str, verb: str, rows: Any, **more: Any) -> Any:
    headers = more.pop("headers", {})
    return client.post(path, {"verb": verb, "uuids": [str(getattr(row, "pk", row)) for row in rows], **more}, **headers)


def end(job: Job, state: str = JobState.SUCCEEDED, **more: Any) -> None:
    """As the engine ends a job."""
    Job.objects.filter(pk=job.pk).update(state=state, finished_at=job.created_at, **more)
    job.resources.update(is_held=False)
    Instance.objects.filter(pk=job.resource_uuid).update(activity="")
    batches.settle(Job.objects.get(pk=job.pk).parent_id)


@pytest.mark.django_db
class TestDoor(Problems):
    def test_done_at_once(self, admin: Client) -> None:
        zones = [ZoneFactory() for _ in range(3)]
        response = ask(admin, ZONES, "disable", zones)
        assert response.status_code == 202, response.content
        body = response.json()
        assert response.headers["Location"] == body["job"]
        assert [row["uuid"] for row in body["results"]] == [str(zone.pk) for zone in zones]
        assert body["results"][0] == {
            "uuid": str(zones[0].pk),
            "name": zones[0].name,
            "url": f"/api/v1/zones/{zones[0].pk}/",
            "state": "succeeded",
            "error": None,
            "job": None,
        }
        assert set(Zone.objects.values_list("availability", flat=True)) == {"disabled"}
        job = admin.get(body["job"]).json()
        assert (job["state"], job["percent"], job["verb"]) == ("succeeded", 100.0, "zone.disable")
        assert job["counts"]["succeeded"] == 3

    def test_each_has_its_own_result(self, admin: Client) -> None:
        host = HostFactory()
        stopped, running, busy = (
            InstanceFactory(place=host, state="stopped"),
            InstanceFactory.running(place=host),
            InstanceFactory.running(place=host, activity="rebooting"),
        )
        results = ask(admin, INSTANCES, "stop", [stopped, running, busy, NOBODYS]).json()["results"]
        assert [row["error"] and row["error"]["code"] for row in results] == ["wrong_state", None, "busy", "not_found"]
        assert [row["state"] for row in results] == ["refused", "queued", "refused", "refused"]
        child = Job.objects.get(workflow="instance.stop")
        assert results[1]["job"] == f"{JOBS}{child.pk}/"
        parent = admin.get(f"{JOBS}{child.parent_id}/").json()
        assert (parent["state"], parent["percent"]) == ("running", 75.0)
        end(child)
        parent = admin.get(f"{JOBS}{child.parent_id}/").json()
        assert (parent["state"], parent["error"]["detail"]) == ("failed", "3 of 4 failed.")
        assert parent["results"][0]["error"]["detail"].startswith(f"{stopped.name} is stopped")
        assert parent["counts"] == {
            **dict.fromkeys(("waiting", "running", "failed", "cancelled", "stuck"), 0),
            "succeeded": 1,
            "refused": 3,
        }

    def test_what_is_not_there_and_what_is_not_yours_are_one(self, admin: Client, tenant: Client) -> None:
        foreign = InstanceFactory()
        results = ask(tenant, INSTANCES, "start", [foreign, NOBODYS]).json()["results"]
        told = [(row["name"], row["state"], row["error"]["code"], row["error"]["detail"]) for row in results]
        assert told[0] == told[1] == ("", "refused", "not_found", "There is no such resource.")
        assert not Job.objects.filter(workflow="instance.start").exists()

    def test_when_all_are_refused(self, admin: Client) -> None:
        body = ask(admin, INSTANCES, "reboot", [InstanceFactory(), InstanceFactory()]).json()
        parent = admin.get(body["job"]).json()
        assert (parent["state"], parent["counts"]["refused"]) == ("failed", 2)
        assert parent["finished_at"]

    def test_params(self, admin: Client) -> None:
        running = InstanceFactory.running()
        assert ask(admin, INSTANCES, "stop", [running], params={"is_forced": True}).status_code == 202
        assert Job.objects.get(workflow="instance.stop").context["is_forced"] is True
        problem = self.assert_problem(ask(admin, INSTANCES, "stop", [running], params={"is_forced": "x"}), 400)
        assert list(problem["errors"]) == ["params.is_forced"]
        problem = self.assert_problem(ask(admin, INSTANCES, "stop", [running], params={"nonsense": 1}), 400)
        assert list(problem["errors"]) == ["params.nonsense"]

    def test_secrets_are_not_kept(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        from cloud.infra import secrets

        monkeypatch.setattr(secrets, "keep", lambda document: "secret-id")
        host = HostFactory()
        body = ask(admin, "/api/v1/hosts/batch/", "reconnect", [host], params={"ssh_password": "very secret"}).json()
        assert body["results"][0]["error"] is None
        assert "very secret" not in str(list(Job.objects.values_list("context", flat=True)))
        child = Job.objects.get(workflow="host.reconnect")
        end(child)
        assert "secrets" not in Job.objects.get(pk=child.parent_id).context

    def test_refused_as_a_whole(self, admin: Client) -> None:
        zone = ZoneFactory()
        self.assert_problem(ask(admin, ZONES, "disable", [zone, zone]), 400, "duplicate")
        self.assert_problem(ask(admin, ZONES, "disable", []), 400)
        self.assert_problem(ask(admin, ZONES, "disable", [uuid.uuid4() for _ in range(door.MOST + 1)]), 400)
        self.assert_problem(ask(admin, ZONES, "explode", [zone]), 400)
        onlooker = member_client("monitor_only")
        self.assert_problem(ask(onlooker, INSTANCES, "start", [zone]), 403, "not_permitted")
        assert not Job.objects.exists()

    def test_once_by_its_key(self, admin: Client) -> None:
        running, again = InstanceFactory.running(), {"headers": {"headers": {"Idempotency-Key": "one"}}}
        first = ask(admin, INSTANCES, "stop", [running], **again)
        second = ask(admin, INSTANCES, "stop", [running], **again)
        assert second.json() == first.json()
        assert Job.objects.filter(workflow="instance.stop").count() == 1
        assert Job.objects.filter(workflow="batch").count() == 1


@pytest.mark.django_db
class TestDeletion(Problems):
    def test_one_preview_for_many(self, admin: Client) -> None:
        zones = [ZoneFactory() for _ in range(3)]
        self.assert_problem(ask(admin, ZONES, "delete", zones), 428, "preview_required")
        seen = ask(admin, f"{ZONES}?dry_run=1", "delete", zones)
        assert seen.status_code == 200, seen.content
        effects = seen.json()["effects"]
        assert [(effect["kind"], effect["effect"], effect["count"]) for effect in effects] == [("zone", "lost", 3)]
        token = {"headers": {"headers": {"X-Preview-Token": seen.json()["token"]}}}
        self.assert_problem(ask(admin, ZONES, "delete", zones[:2], **token), 400, "bad_preview_token")
        response = ask(admin, ZONES, "delete", zones, **token)
        assert {row["state"] for row in response.json()["results"]} == {"succeeded"}
        assert not Zone.objects.exists()

    def test_destroying_is_deleting(self, admin: Client) -> None:
        made = [InstanceFactory(), InstanceFactory()]
        for verb, instance in zip(("delete", "destroy"), made, strict=True):
            assert ask(admin, INSTANCES, verb, [instance]).json()["results"][0]["job"]

    def test_nothing_to_look_at(self, admin: Client) -> None:
        self.assert_problem(ask(admin, f"{ZONES}?dry_run=1", "disable", [ZoneFactory()]), 400, "no_preview")


@pytest.mark.django_db
class TestInterrupted(Problems):
    def accept(self, client: Client, rows: list[Any], verb: str = "disable") -> Job:
        """As the door does, dying before it has begun anything."""
        model = type(rows[0])._meta.label
        prefix = "zones" if model == "infra.Zone" else "instances"
        batch = door.Batch(prefix, verb, f"{prefix[:-1]}.{verb}", model, [row.pk for row in rows])
        return batches.begin(batch, actor=client.actor)

    def test_a_worker_goes_on(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[str] = []
        monkeypatch.setattr(batches, "_kick", lambda parent: sent.append(str(parent)))
        parent = self.accept(admin, [ZoneFactory(), ZoneFactory()])
        sweep.run()
        assert sent == [str(parent.pk)]
        tasks.go_on(str(parent.pk))
        parent.refresh_from_db()
        assert (parent.state, parent.lease_owner) == (JobState.SUCCEEDED, "")
        assert set(Zone.objects.values_list("availability", flat=True)) == {"disabled"}

    def test_what_was_begun_is_not_begun_again(self, admin: Client) -> None:
        zones = sorted([ZoneFactory(), ZoneFactory()], key=lambda zone: zone.pk)
        parent = self.accept(admin, zones)
        first = JobItem.objects.get(resource_uuid=zones[0].pk)
        batches._begin_item(first.pk)
        Zone.objects.update(availability="enabled")
        batches.go_on(parent.pk)
        assert [Zone.objects.get(pk=zone.pk).availability for zone in zones] == ["enabled", "disabled"]

    def test_two_do_not_begin_at_once(self, admin: Client) -> None:
        parent = self.accept(admin, [ZoneFactory()])
        Job.objects.filter(pk=parent.pk).update(lease_until="9999-01-01T00:00Z", lease_owner="another")
        batches.go_on(parent.pk)
        assert JobItem.objects.get().state == ItemState.WAITING

    def test_patience_ends(self, admin: Client, django_capture_on_commit_callbacks: Any, monkeypatch: Any) -> None:
        sent: list[Any] = []
        monkeypatch.setattr(batches, "_kick", sent.append)
        parent = self.accept(admin, [ZoneFactory()])
        with django_capture_on_commit_callbacks(execute=True):
            batches.go_on(parent.pk, patience_s=-1.0)
        assert sent == [parent.pk]
        assert JobItem.objects.get().state == ItemState.WAITING

    def test_cancelled(self, admin: Client, django_capture_on_commit_callbacks: Any) -> None:
        parent = self.accept(admin, [ZoneFactory(), ZoneFactory()])
        with django_capture_on_commit_callbacks(execute=True):
            assert admin.post(f"{JOBS}{parent.pk}/cancel/").status_code == 200
        body = admin.get(f"{JOBS}{parent.pk}/").json()
        assert (body["state"], body["counts"]["cancelled"]) == ("cancelled", 2)
        assert body["results"][0]["error"]["code"] == "cancelled"
        batches.go_on(parent.pk)
        assert set(Zone.objects.values_list("availability", flat=True)) == {"enabled"}

    def test_a_defect_of_one_is_its_own(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        parent = self.accept(admin, [ZoneFactory(), ZoneFactory()])
        calls: list[int] = []
        real = door.perform

        def perform(*given: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("a defect")
            return real(*given)

        monkeypatch.setattr(door, "perform", perform)
        batches.go_on(parent.pk)
        told = admin.get(f"{JOBS}{parent.pk}/").json()
        assert sorted(row["state"] for row in told["results"]) == ["refused", "succeeded"]
        assert "internal_error" in [row["error"] and row["error"]["code"] for row in told["results"]]


@pytest.mark.django_db
class TestResults(Problems):
    def test_pages(self, admin: Client) -> None:
        zones = [ZoneFactory() for _ in range(5)]
        body = ask(admin, ZONES, "disable", [*zones, NOBODYS]).json()
        path, walked = f"{body['job']}results/?limit=2", []
        while path:
            page = admin.get(path).json()
            assert (page["count"], page["count_is_estimate"]) == (6, False)
            walked += [row["uuid"] for row in page["results"]]
            path = page["next"]
        assert walked == [*(str(zone.pk) for zone in zones), NOBODYS]
        assert admin.get(body["job"]).json()["results_url"] == f"{body['job']}results/"
        refused = admin.get(f"{body['job']}results/?state=refused").json()
        assert [row["uuid"] for row in refused["results"]] == [NOBODYS]
        self.assert_problem(admin.get(f"{body['job']}results/?state=odd"), 400)

    def test_results_outlive_the_jobs(self, admin: Client) -> None:
        body = ask(admin, INSTANCES, "stop", [InstanceFactory.running()]).json()
        child = Job.objects.get(workflow="instance.stop")
        end(child, JobState.FAILED, error={"code": "broken", "detail": {"en": "It broke."}})
        child.delete()
        row = admin.get(body["job"]).json()["results"][0]
        assert (row["state"], row["error"]["code"], row["job"]) == ("failed", "broken", None)


@pytest.mark.django_db
class TestRetry(Problems):
    def test_only_the_failed_ones(self, admin: Client) -> None:
        good, bad, refused = InstanceFactory.running(), InstanceFactory.running(), InstanceFactory()
        body = ask(admin, INSTANCES, "stop", [good, bad, refused], params={"is_forced": True}).json()
        self.assert_problem(admin.post(f"{body['job']}retry/", {}), 409, "not_ended")
        end(Job.objects.get(resource_uuid=good.pk))
        end(Job.objects.get(resource_uuid=bad.pk), JobState.FAILED)
        Instance.objects.filter(pk=refused.pk).update(state="running", host=HostFactory())
        response = admin.post(f"{body['job']}retry/", {})
        assert response.status_code == 202, response.content
        again = response.json()
        assert again["job"] != body["job"]
        assert {row["uuid"] for row in again["results"]} == {str(bad.pk), str(refused.pk)}
        assert {row["state"] for row in again["results"]} == {"queued"}
        assert {job.context["is_forced"] for job in Job.objects.filter(workflow="instance.stop")} == {True}
        problem = self.assert_problem(admin.post(f"{body['job']}retry/", {}), 409, "already_retried")
        assert problem["job"] == again["job"]
        assert AuditRecord.objects.filter(action="job.retry").count() == 1

    def test_nothing_failed(self, admin: Client) -> None:
        body = ask(admin, ZONES, "disable", [ZoneFactory()]).json()
        self.assert_problem(admin.post(f"{body['job']}retry/", {}), 409, "nothing_to_retry")

    def test_the_job_of_one(self, admin: Client) -> None:
        job = ask(admin, INSTANCES, "stop", [InstanceFactory.running()]).json()["results"][0]["job"]
        self.assert_problem(admin.post(f"{job}retry/", {}), 409, "not_many")

    def test_rights_are_of_who_retries(self, admin: Client) -> None:
        onlooker = member_client("monitor_only")
        with transaction.atomic():
            parent = services.open_batch("x", actor=onlooker.actor, project_id=onlooker.project.pk, count=0)
        self.assert_problem(onlooker.post(f"{JOBS}{parent.pk}/retry/", {}), 403, "not_permitted")
