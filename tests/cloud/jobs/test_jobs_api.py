"""Jobs as the API shows and cancels them."""

from typing import Any

import pytest
from django.db import transaction

from cloud.common.actor import platform
from cloud.common.errors import Problem
from cloud.infra.models import Zone
from cloud.jobs import agents, failures, services
from cloud.jobs.models import Job, JobState, JobStep
from tests.base.api import ListApiTests, Problems
from tests.base.clients import Client, member_client
from tests.cloud.jobs.flows import AGENT, Lights
from tests.factories.infra import ZoneFactory

PATH = "/api/v1/jobs/"


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "kick", lambda job, queue="control": None)
    monkeypatch.setattr(agents, "abort", lambda keys: None)
    monkeypatch.setattr(agents, "progress", lambda keys: {})


def open_job(client: Client | None = None, **fields: Any) -> Job:
    """A job on a zone of the client's project; by default one of the platform's."""
    place: Zone = ZoneFactory(**({"project": client.project} if client else {}))
    actor = client.actor if client else platform("test")
    with transaction.atomic():
        job = services.open(Lights, resource=place, actor=actor)
    Job.objects.filter(pk=job.pk).update(**fields)
    job.refresh_from_db()
    return job


def of_project(**fields: Any) -> Job:
    project = fields.pop("project")
    job = open_job(**fields)
    Job.objects.filter(pk=job.pk).update(project_id=project.pk)
    return job


class TestJobs(ListApiTests):
    prefix = "jobs"
    factory = staticmethod(of_project)
    search = staticmethod(lambda job: job.resource_name)
    orderings = ("created_at",)
    filters = {
        "state": lambda job: job.state,
        "workflow": lambda job: job.workflow,
        "resource_uuid": lambda job: job.resource_uuid,
    }
    list_queries = 5

    def test_the_newest_comes_first(self, admin: Client) -> None:
        first, second = open_job(), open_job()
        assert self.rows(admin) == [str(second.pk), str(first.pk)]

    def test_neither_made_nor_changed_nor_deleted(self, admin: Client) -> None:
        job = open_job()
        for answer in (admin.post(self.path, {}), admin.patch(self.detail(job), {}), admin.delete(self.detail(job))):
            self.assert_problem(answer, 405, "method_not_allowed")


@pytest.mark.django_db
class TestDetail(Problems):
    def test_steps_in_words(self, admin: Client) -> None:
        job = open_job(admin, state=JobState.RUNNING, cursor=2, percent=40.0)
        body = admin.get(f"{PATH}{job.pk}/").json()
        assert (body["verb"], body["workflow"], body["step"], body["percent"]) == (
            "Switch on",
            "test.lights",
            "On the machine",
            40.0,
        )
        assert [step["label"] for step in body["steps"]] == [
            "A reservation",
            "First",
            "On the machine",
            "Condition",
            "Last",
        ]
        assert (body["is_cancellable"], body["error"], body["progress"]) == (True, None, None)
        assert (body["resource_uuid"], body["actor_name"]) == (str(job.resource_uuid), admin.actor.name)

    def test_undoing_in_words(self, admin: Client) -> None:
        body = admin.get(f"{PATH}{open_job(state=JobState.UNDOING, cursor=1).pk}/").json()
        assert (body["step"], body["is_cancellable"]) == ("Undoing: First", False)

    def test_progress_of_the_machine(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        job = open_job(state=JobState.RUNNING, cursor=2)
        said = {"percent": 12.5, "text": "reading", "bytes_done": 1, "bytes_total": 8}
        monkeypatch.setattr(agents, "progress", lambda keys: dict.fromkeys(keys, said))
        Job.objects.update(waiting={f"{job.pk}:2:run:1": {"agent": AGENT, "sent_at": 0}})
        assert admin.get(f"{PATH}{job.pk}/").json()["progress"] == said

    def test_the_error_in_the_readers_language(self, admin: Client) -> None:
        job = open_job(state=JobState.FAILED)
        Job.objects.update(error=failures.cancelled())
        JobStep.objects.filter(position=0).update(error=failures.document(Problem("x", code="y", advice="z")))
        english = admin.get(f"{PATH}{job.pk}/").json()
        chinese = admin.get(f"{PATH}{job.pk}/", headers={"Accept-Language": "zh-CN"}).json()
        assert (english["error"]["code"], english["error"]["detail"]) == ("cancelled", "The job was cancelled.")
        assert chinese["error"]["code"] == "cancelled"
        assert isinstance(chinese["error"]["detail"], str)
        assert chinese["error"]["detail"] != english["error"]["detail"]
        assert english["steps"][0]["error"]["advice"] == "z"
        assert admin.get(PATH).json()["results"][0]["error"]["detail"] == "The job was cancelled."

    def test_a_workflow_that_is_no_more(self, admin: Client) -> None:
        """Records of jobs outlive the release that ran them."""
        job = open_job(workflow="long.gone", state=JobState.SUCCEEDED)
        body = admin.get(f"{PATH}{job.pk}/").json()
        assert (body["verb"], body["step"], body["steps"][0]["label"]) == ("long.gone", "", "Kept")

    def test_few_queries(self, admin: Client, django_assert_max_num_queries: Any) -> None:
        job = open_job()
        admin.get(f"{PATH}{job.pk}/")
        with django_assert_max_num_queries(7):
            admin.get(f"{PATH}{job.pk}/")

    def test_tenants_see_their_projects_jobs(self, tenant: Client, other_tenant: Client) -> None:
        job = open_job(tenant)
        assert tenant.get(f"{PATH}{job.pk}/").status_code == 200
        self.assert_problem(other_tenant.get(f"{PATH}{job.pk}/"), 404, "not_found")
        self.assert_problem(other_tenant.post(f"{PATH}{job.pk}/cancel/"), 404, "not_found")


@pytest.mark.django_db
class TestCancel(Problems):
    def test_one_that_may_be(self, admin: Client) -> None:
        job = open_job()
        response = admin.post(f"{PATH}{job.pk}/cancel/")
        assert response.status_code == 200, response.content
        assert (response.json()["state"], response.json()["is_cancellable"]) == ("cancelling", False)
        self.assert_problem(admin.post(f"{PATH}{job.pk}/cancel/"), 409)

    @pytest.mark.parametrize("state", [state for state in JobState if state not in ("queued", "running")])
    def test_one_that_has_ended_or_is_ending(self, admin: Client, state: JobState) -> None:
        self.assert_problem(admin.post(f"{PATH}{open_job(state=state).pk}/cancel/"), 409)

    def test_a_step_that_cannot_be_interrupted(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Lights.steps[0], "is_cancellable", False)
        job = open_job(state=JobState.RUNNING)
        assert admin.get(f"{PATH}{job.pk}/").json()["is_cancellable"] is False
        self.assert_problem(admin.post(f"{PATH}{job.pk}/cancel/"), 409, "not_cancellable")

    def test_a_batch(self, admin: Client) -> None:
        with transaction.atomic():
            parent = services.open_batch("test.lights", actor=admin.actor, project_id=admin.project.pk, count=2)
            children = [
                services.open(Lights, resource=ZoneFactory(), actor=admin.actor, parent=parent) for _ in range(2)
            ]
        body = admin.get(f"{PATH}{parent.pk}/").json()
        assert (body["verb"], body["is_cancellable"], body["parent"]) == ("Switch on", True, None)
        listed = admin.get(PATH, {"parent": str(parent.pk)}).json()["results"]
        assert {row["uuid"] for row in listed} == {str(child.pk) for child in children}
        assert listed[0]["parent"] == f"{PATH}{parent.pk}/"
        assert admin.post(f"{PATH}{parent.pk}/cancel/").json()["state"] == "cancelling"
        assert set(Job.objects.values_list("state", flat=True)) == {"cancelling"}

    def test_rights(self, admin: Client) -> None:
        onlooker = member_client("monitor_only")
        self.assert_problem(onlooker.post(f"{PATH}{open_job(onlooker).pk}/cancel/"), 403, "not_permitted")
