"""What `acts` says of a resource is what its doors answer: every act of every resource, in every state."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

import cloud.urls  # noqa: F401 - registers every list
from cloud.accounts.models import Project
from cloud.common.api import router
from cloud.infra import secrets
from cloud.infra.models import HostState
from cloud.jobs import agents
from cloud.jobs.models import Job, JobResource, JobState
from compute.models import Instance, InstanceState
from storage.models import ImageState, StorageState, VolumeState
from tests.base.clients import Client, admin_client, member_client
from tests.contract.everything import Everything, populate
from tests.factories.accounts import ProjectFactory
from tests.factories.infra import ClusterFactory, ZoneFactory

VIEWS = {prefix: view for prefix, view, _name in router._router.registry if getattr(view, "acts", None)}
STATES: dict[str, Any] = {
    "instances": InstanceState,
    "images": ImageState,
    "volumes": VolumeState,
    "hosts": HostState,
    "primary-storages": StorageState,
    "backup-storages": StorageState,
    "jobs": JobState,
}
# What depends on what is asked for, or on the room there is, is told by the act alone.
OF_THE_ASKING = {"no_host_fits", "not_attached", "already_attached", "in_use", "interface_in_use", "self_lock_out"}


@pytest.fixture(autouse=True)
def _beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "ask", lambda agent, message, timeout=5.0: {"domains": []})
    monkeypatch.setattr(secrets, "keep", lambda document: "secret-id")


@pytest.fixture
def project(db: None) -> Project:
    made: Project = ProjectFactory()
    return made


@pytest.fixture
def everything(project: Project) -> Everything:
    return populate(project)


def body(prefix: str, name: str, row: Any) -> dict[str, Any]:
    """Input that the act takes."""
    match prefix, name:
        case ("primary-storages", "attach" | "detach"):
            return {"cluster": str(ClusterFactory(zone=row.zone).pk)}
        case ("l2-networks", "attach" | "detach"):
            return {"cluster": str(ClusterFactory(zone=row.zone).pk)}
        case ("l2-networks", "add_vni_range"):
            return {"start": 9000, "end": 9010}
        case ("l3-networks", "reserve_addresses" | "release_addresses"):
            return {"start": "192.168.50.88"}
        case ("users", "grant"):
            return {"project": str(row.account.projects.get(is_default=True).pk), "role": "monitor_only"}
        case ("users", "revoke"):
            return {"project": str(row.account.projects.get(is_default=True).pk)}
        case (_, "reconnect"):
            return {"ssh_password": "word"}
        case (_, "tunnel"):
            return {"port": 22}
    return {}


def door(client: Client, prefix: str, name: str, row: Any) -> Any:
    """What the act's own door answers."""
    path = f"/api/v1/{prefix}/{row.pk}/"
    if name == "update":
        return client.patch(path, {"name": "another"} if prefix != "users" else {"email": "a@example.org"})
    if name == "delete":
        return client.remove(path)
    path = f"{path}{name.replace('_', '-')}/"
    if (prefix, name) == ("jobs", "settle"):
        seen = client.post(f"{path}?dry_run=1", {})
        if seen.status_code != 200:
            return seen
        return client.post(path, {}, headers={"X-Preview-Token": seen.json()["token"]})
    return client.post(path, body(prefix, name, row))


def situations(prefix: str, row: Any) -> Iterator[str]:
    """The row in every state, idle and busy."""
    manager = type(row)._default_manager
    JobResource.objects.filter(resource_uuid=row.pk).update(is_held=False)
    states = [str(state) for state in STATES[prefix]] if prefix in STATES else [""]
    for state in states:
        if state:
            manager.filter(pk=row.pk).update(state=state)
        yield state or "as it is"
        if state and hasattr(row, "activity"):
            manager.filter(pk=row.pk).update(activity="migrating")
            job = Job.objects.create(workflow="instance.start", resource_type=row._meta.label, resource_uuid=row.pk)
            held = JobResource.objects.create(job=job, resource_type=row._meta.label, resource_uuid=row.pk)
            yield f"{state}, busy"
            held.delete()
            manager.filter(pk=row.pk).update(activity="")


def disagreement(said: dict[str, Any], response: Any) -> str:
    problem = response.json() if response.status_code >= 400 else {}
    if said["allowed"]:
        is_told_by_the_act = problem.get("status") in (403, 409, 428) and problem["code"] not in OF_THE_ASKING
        return f"allowed, and refused: {problem['code']}" if is_told_by_the_act else ""
    if not problem:
        return f"{said['code']}, and done"
    told = {name: said[name] for name in ("code", "reason", "advice")}
    answered = {"code": problem["code"], "reason": problem["detail"], "advice": problem["advice"]}
    if told != answered:
        return f"said {told}, answered {answered}"
    return "" if said["job"] == problem.get("job") else f"said {said['job']}, answered {problem.get('job')}"


@pytest.mark.parametrize("prefix", VIEWS)
@pytest.mark.parametrize("who", ["platform_admin", "project_member", "monitor_only"])
def test_every_act_in_every_state(prefix: str, who: str, everything: Everything, project: Project) -> None:
    client = admin_client() if who == "platform_admin" else member_client(who, project)
    wrong, asked = [], 0
    # One row does where rights decide; the administrator tries rows in use and rows that are free.
    for row in everything.rows[prefix] if who == "platform_admin" else everything.rows[prefix][:1]:
        for situation in situations(prefix, row):
            detail = client.get(f"/api/v1/{prefix}/{row.pk}/")
            if detail.status_code != 200:  # not this caller's to see
                continue
            said = detail.json()["acts"]
            assert set(said) == set(VIEWS[prefix].acts)
            for name, answer in said.items():
                with transaction.atomic():
                    reason = disagreement(answer, door(client, prefix, name, row))
                    transaction.set_rollback(True)
                asked += 1
                if reason:
                    wrong.append(f"{prefix} {name} ({situation}): {reason}")
    assert not wrong, "\n".join(wrong)
    assert asked or who != "platform_admin"


def test_every_act_on_a_row_is_declared() -> None:
    """Whatever an API address does to a row says beforehand whether it may be done."""
    silent = [
        f"{prefix}.{verb.url_path}"
        for prefix, view, _name in router._router.registry
        for verb in getattr(view, "get_extra_actions", list)()
        if verb.detail and "post" in verb.mapping and verb.__name__ not in getattr(view, "acts", {})
    ]
    assert silent == ["settings.override", "settings.reset-override"]


@pytest.mark.parametrize("prefix", VIEWS)
def test_a_list_asks_for_all_rows_at_once(prefix: str, everything: Everything, admin: Client) -> None:
    path = f"/api/v1/{prefix}/"
    shown = admin.get(path, {"fields": "acts"}).json()["results"]
    for row in shown:
        assert row["acts"] == admin.get(row["url"]).json()["acts"], row["url"]
    with CaptureQueriesContext(connection) as one:
        admin.get(path, {"fields": "acts", "limit": 1})
    with CaptureQueriesContext(connection) as many:
        admin.get(path, {"fields": "acts"})
    # A row that is refused early is not asked further: at most a query more for each check.
    assert len(many) <= len(one) + len(VIEWS[prefix].acts), [query["sql"] for query in many.captured_queries]
    assert "acts" not in admin.get(path).json()["results"][0]
    assert admin.get(path, {"fields": "nonsense"}).json()["code"] == "bad_fields"


def test_it_names_the_job_in_the_way(everything: Everything, admin: Client) -> None:
    busy = everything.rows["instances"][3]
    said = admin.get(f"/api/v1/instances/{busy.pk}/").json()["acts"]
    assert said["recover"]["code"] == "busy"
    assert said["recover"]["job"] == f"/api/v1/jobs/{everything.rows['jobs'][0].pk}/"
    assert said["recover"]["advice"]
    Instance.objects.filter(pk=busy.pk).update(activity="")
    assert admin.get(f"/api/v1/instances/{busy.pk}/").json()["acts"]["recover"]["code"] == "busy"


def test_a_new_cluster_may_go(admin: Client) -> None:
    cluster = ClusterFactory()
    assert admin.get(f"/api/v1/clusters/{cluster.pk}/").json()["acts"]["delete"]["allowed"] is True
    said = admin.get(f"/api/v1/zones/{cluster.zone_id}/").json()["acts"]["delete"]
    assert (said["allowed"], said["code"]) == (False, "in_use")
    assert "1 × cluster" in said["reason"]
    assert admin.get(f"/api/v1/zones/{ZoneFactory().pk}/").json()["acts"]["delete"]["allowed"] is True
