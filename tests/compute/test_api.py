"""Instances and offerings through the API."""

import uuid
from typing import Any

import pytest

from cloud.common.errors import Conflict, Unavailable
from cloud.infra import secrets
from cloud.jobs import agents
from cloud.jobs.models import Job
from compute.models import Instance, InstanceOffering, InstanceState
from tests.base.api import NOBODYS, Problems, ResourceApiTests
from tests.base.clients import Client, member_client
from tests.compute.world import GIB, World
from tests.factories.compute import InstanceFactory, InstanceOfferingFactory
from tests.factories.infra import HostFactory
from tests.factories.storage import DiskOfferingFactory, ImageFactory, storage_on
from tests.network import factories as networks

PATH = "/api/v1/instances/"


def running(**fields: Any) -> Instance:
    """A running instance with a NIC."""
    made: Instance = InstanceFactory.running(
        image=ImageFactory(), instance_offering=InstanceOfferingFactory(), **fields
    )
    networks.nic(instance_uuid=made.pk)
    return made


class TestOfferings(ResourceApiTests):
    prefix = "instance-offerings"
    factory = InstanceOfferingFactory
    orderings = ("created_at", "name", "cpu", "memory_bytes")
    filters = {"availability": lambda row: row.availability}
    create_body = {"name": "large", "cpu": 8, "memory_bytes": 16 * GIB, "description": "for databases"}
    update_body = {"name": "larger", "description": "for larger ones"}

    def test_size_stays(self, admin: Client) -> None:
        offering = InstanceOfferingFactory()
        problem = self.assert_problem(admin.patch(self.detail(offering), {"cpu": 2}), 400, "unknown_field")
        assert problem["errors"]["cpu"]

    def test_names_are_told_apart(self, admin: Client) -> None:
        self.create(admin)
        self.assert_problem(self.create(admin), 409)
        other = InstanceOfferingFactory()
        self.assert_problem(admin.patch(self.detail(other), {"name": "large"}), 409)

    @pytest.mark.parametrize(
        "wrong", [{"cpu": 0}, {"cpu": 513}, {"cpu": "many"}, {"memory_bytes": 1}, {"memory_bytes": 2**63}, {"name": ""}]
    )
    def test_sizes(self, admin: Client, wrong: dict[str, Any]) -> None:
        problem = self.assert_problem(admin.post(self.path, {**self.create_body, **wrong}), 400)
        assert set(problem["errors"]) == set(wrong)

    def test_enable_and_disable(self, admin: Client, tenant: Client) -> None:
        offering = InstanceOfferingFactory()
        for verb, result in (("disable", "disabled"), ("disable", "disabled"), ("enable", "enabled")):
            response = admin.post(self.detail(offering, verb), {})
            assert (response.status_code, response.json()["availability"]) == (200, result)
        self.assert_problem(tenant.post(self.detail(offering, "disable"), {}), 404, "not_found")

    def test_deleted_while_in_use(self, admin: Client) -> None:
        instance = running(place=HostFactory())
        assert admin.delete(self.detail(instance.instance_offering)).status_code == 204
        instance.refresh_from_db()
        assert (instance.instance_offering, instance.cpu) == (None, 1)
        assert not InstanceOffering.objects.exists()


class TestInstances(ResourceApiTests):
    prefix = "instances"
    factory = staticmethod(running)
    filters = {
        "state": lambda row: row.state,
        "zone": lambda row: row.zone_id,
        "cluster": lambda row: row.cluster_id,
        "host": lambda row: row.host_id,
        "image": lambda row: row.image_id,
        "instance_offering": lambda row: row.instance_offering_id,
        "project": lambda row: row.project_id,
    }
    creates_job = deletes_job = True
    list_queries = 6

    @staticmethod
    def create_body(client: Client) -> dict[str, Any]:
        host = HostFactory()
        storage_on(host)
        l3 = networks.l3(networks.no_vlan(host.cluster.zone, clusters=[host.cluster]))
        host.agent.facts = {"nics": networks.cards()}
        host.agent.save()
        return {
            "name": "web",
            "image": str(ImageFactory().pk),
            "cpu": 1,
            "memory_bytes": GIB,
            "nics": [{"l3_network": str(l3.pk)}],
        }

    def test_create_needs_the_right(self, anonymous: Client, db: None) -> None:
        caller = member_client("monitor_only")
        self.assert_problem(anonymous.post(self.path, {}), 401, "not_signed_in")
        self.assert_problem(caller.post(self.path, {}), 403, "not_permitted")

    def test_what_is_shown(self, admin: Client) -> None:
        made = running(state_reason="Its host does not answer.")
        row = admin.get(self.path).json()["results"][0]
        assert (row["state"], row["activity"], row["host"]["name"]) == ("running", "", made.host.name)
        assert row["addresses"] == ["192.168.50.3"]
        assert "nics" not in row
        body = admin.get(self.detail(made)).json()
        assert row.items() <= body.items()
        assert [nic["address"] for nic in body["nics"]] == row["addresses"]
        assert (body["volumes"], body["last_host"]) == ([], None)
        assert "user_data" not in body
        said = admin.get(self.detail(made), headers={"Accept-Language": "zh-CN"}).json()["state_reason"]
        assert said != body["state_reason"] == "Its host does not answer."

    def test_detail_queries(self, admin: Client, django_assert_max_num_queries: Any) -> None:
        made = running()
        admin.get(self.detail(made))
        with django_assert_max_num_queries(9):
            admin.get(self.detail(made))

    def test_search_by_part_of_the_name(self, admin: Client) -> None:
        made, _other = running(name="web server 1"), running(name="database")
        assert self.rows(admin, q="WEB ver") == [str(made.pk)]

    def test_a_tenant_sees_ones_own(self, tenant: Client, admin: Client) -> None:
        mine, theirs = running(project=tenant.project), running()
        assert self.rows(tenant) == [str(mine.pk)]
        assert len(self.rows(admin)) == 2
        for verb in ("start", "stop", "reboot", "recover", "expunge", "console", "tunnel"):
            self.assert_problem(tenant.post(self.detail(theirs, verb)), 404, "not_found")
        self.assert_problem(tenant.get(self.detail(theirs, "guest")), 404, "not_found")


@pytest.fixture
def asked(still: World) -> dict[str, Any]:
    """What a caller asks for in the world of a test."""
    return {
        "name": "web",
        "image": str(still.image.pk),
        "cpu": 1,
        "memory_bytes": GIB,
        "nics": [{"l3_network": str(still.l3.pk)}],
    }


class TestCreate(Problems):
    def test_everything_there_is_to_say(self, still: World, admin: Client, asked: dict[str, Any]) -> None:
        offering, disk = InstanceOfferingFactory(cpu=2, memory_bytes=2 * GIB), DiskOfferingFactory()
        del asked["cpu"], asked["memory_bytes"]
        body = {
            **asked,
            "name": "web-{n}",
            "count": 2,
            "description": "two of them",
            "instance_offering": str(offering.pk),
            "root_volume": {"size_bytes": 3 * GIB, "primary_storage": str(still.storage.pk)},
            "data_volumes": [{"disk_offering": str(disk.pk)}, {"size_bytes": GIB}],
            "ssh_keys": ["ssh-ed25519 AAAA me\n"],
            "user_data": "  #cloud-config\n",
            "zone": str(still.zone.pk),
            "cluster": str(still.cluster.pk),
            "host": str(still.hosts[1].pk),
            "strategy": "create_only",
        }
        response = admin.post(PATH, body)
        assert response.status_code == 202, response.content
        assert response.headers["Location"] == response.json()["job"]
        assert [row["name"] for row in response.json()["results"]] == ["web-1", "web-2"]
        job = admin.get(response.json()["job"]).json()
        assert (job["workflow"], job["state"]) == ("batch", "running")
        children = admin.get("/api/v1/jobs/", {"parent": job["uuid"]}).json()["results"]
        assert {child["workflow"] for child in children} == {"instance.create_only"}
        found = admin.get(response.json()["results"][0]["url"]).json()
        assert (found["cpu"], found["memory_bytes"], found["activity"]) == (2, 2 * GIB, "creating")
        assert [volume["size_bytes"] for volume in found["volumes"]] == [3 * GIB, disk.size_bytes, GIB]
        assert found["ssh_keys"] == ["ssh-ed25519 AAAA me"]
        assert found["host"]["uuid"] == str(still.hosts[1].pk)
        assert secrets.unseal(Instance.objects.get(pk=found["uuid"]).user_data_sealed) == "  #cloud-config\n"

    @pytest.mark.parametrize(
        ("wrong", "fields"),
        [
            ({"nonsense": 1}, {"nonsense"}),
            ({"nics": [{"l3_network": NOBODYS}]}, {"nics.0.l3_network"}),
            ({"nics": [{}]}, {"nics.0.l3_network"}),
            ({"nics": [{"nonsense": 1}]}, {"nics.0.nonsense"}),
            ({"nics": [{"ip": "nonsense"}]}, {"nics.0.ip", "nics.0.l3_network"}),
            ({"nics": "nonsense"}, {"nics"}),
            ({"image": NOBODYS}, {"image"}),
            ({"image": None}, {"image"}),
            ({"count": 0}, {"count"}),
            ({"count": 101}, {"count"}),
            ({"name": ""}, {"name"}),
            ({"name": "x" * 201}, {"name"}),
            ({"cpu": 0}, {"cpu"}),
            ({"memory_bytes": 1}, {"memory_bytes"}),
            ({"root_volume": {"size_bytes": 0}}, {"root_volume.size_bytes"}),
            ({"root_volume": {"nonsense": 0}}, {"root_volume.nonsense"}),
            ({"data_volumes": [{}]}, {"data_volumes.0.size_bytes"}),
            ({"data_volumes": [{"size_bytes": GIB}] * 24}, {"data_volumes"}),
            ({"ssh_keys": ["nonsense"]}, {"ssh_keys"}),
            ({"ssh_keys": ["ssh-ed25519 AAAA\nssh-ed25519 BBBB"]}, {"ssh_keys"}),
            ({"strategy": "hope"}, {"strategy"}),
            ({"zone": NOBODYS}, {"zone"}),
            ({"host": "nonsense"}, {"host"}),
        ],
    )
    def test_bad_input(
        self, still: World, admin: Client, asked: dict[str, Any], wrong: dict[str, Any], fields: set[str]
    ) -> None:
        problem = self.assert_problem(admin.post(PATH, {**asked, **wrong}), 400)
        assert set(problem["errors"]) == fields
        assert not Instance.objects.exists()

    @pytest.mark.parametrize("missing", [{"cpu"}, {"memory_bytes"}, {"cpu", "memory_bytes"}])
    def test_a_size_by_itself_is_whole(
        self, still: World, admin: Client, asked: dict[str, Any], missing: set[str]
    ) -> None:
        body = {name: value for name, value in asked.items() if name not in missing}
        assert self.assert_problem(admin.post(PATH, body), 400)["errors"]["instance_offering"]

    @pytest.mark.parametrize("kept", [{"cpu"}, {"memory_bytes"}, {"cpu", "memory_bytes"}])
    def test_an_offering_stands_alone(self, still: World, admin: Client, asked: dict[str, Any], kept: set[str]) -> None:
        sizes = {"cpu", "memory_bytes"}
        body = {name: value for name, value in asked.items() if name not in sizes - kept}
        problem = self.assert_problem(
            admin.post(PATH, {**body, "instance_offering": str(InstanceOfferingFactory().pk)}), 400
        )
        assert set(problem["errors"]) == kept

    def test_a_root_volume_smaller_than_the_image(self, still: World, admin: Client, asked: dict[str, Any]) -> None:
        response = admin.post(PATH, {**asked, "root_volume": {"size_bytes": still.image.size_bytes - 1}})
        assert self.assert_problem(response, 400)["errors"]["root_volume.size_bytes"]

    def test_why_no_host_fits(self, still: World, admin: Client, asked: dict[str, Any]) -> None:
        problem = self.assert_problem(admin.post(PATH, {**asked, "cpu": 500}), 409, "no_host_fits")
        assert {reason["name"] for reason in problem["reasons"]} == {"host-1", "host-2"}
        assert problem["advice"]

    def test_a_taken_address(self, still: World, admin: Client, asked: dict[str, Any]) -> None:
        taken = networks.nic(still.l3)
        asked["nics"][0]["ip"] = taken.address
        problem = self.assert_problem(admin.post(PATH, asked), 409, "address_taken")
        assert problem["errors"]["nics.0.ip"]
        assert problem["used_by"]["name"] == taken.instance_name

    def test_what_is_not_the_callers_is_not_there(self, still: World, tenant: Client, asked: dict[str, Any]) -> None:
        problem = self.assert_problem(tenant.post(PATH, asked), 400)
        assert set(problem["errors"]) == {"image", "nics.0.l3_network"}

    def test_a_tenant_makes_ones_own(self, still: World, tenant: Client, asked: dict[str, Any]) -> None:
        still.image.project = still.l3.project = tenant.project
        still.image.save(), still.l3.save()
        response = tenant.post(PATH, asked)
        assert response.status_code == 202, response.content
        assert Instance.objects.get().project == tenant.project
        assert tenant.get(response.json()["job"]).json()["resource_name"] == "web"


class TestActs(Problems):
    @pytest.mark.parametrize(
        ("verb", "state", "body"),
        [
            ("start", "stopped", {}),
            ("stop", "running", {}),
            ("stop", "running", {"is_forced": True}),
            ("reboot", "running", {"is_forced": False}),
            ("recover", "destroyed", {}),
            ("expunge", "destroyed", {}),
        ],
    )
    @pytest.mark.django_db
    def test_verbs(self, admin: Client, verb: str, state: str, body: dict[str, Any]) -> None:
        instance = InstanceFactory.running() if state == "running" else InstanceFactory(state=state)
        response = admin.post(f"{PATH}{instance.pk}/{verb}/", body)
        assert response.status_code == 202, response.content
        assert response.json()["results"][0] == {
            "uuid": str(instance.pk),
            "name": instance.name,
            "url": f"{PATH}{instance.pk}/",
        }
        again = self.assert_problem(admin.post(f"{PATH}{instance.pk}/{verb}/", body), 409, "busy")
        assert again["job"] == response.json()["job"] == response.headers["Location"]

    @pytest.mark.django_db
    def test_wrong_state_and_nonsense(self, admin: Client) -> None:
        instance = InstanceFactory()
        problem = self.assert_problem(admin.post(f"{PATH}{instance.pk}/stop/"), 409, "wrong_state")
        assert (problem["state"], "running" in problem["needed"]) == ("stopped", True)
        self.assert_problem(admin.post(f"{PATH}{instance.pk}/start/", {"nonsense": 1}), 400, "unknown_field")
        self.assert_problem(admin.post(f"{PATH}{instance.pk}/stop/", {"is_forced": "perhaps"}), 400)
        self.assert_problem(admin.post(f"{PATH}{uuid.uuid4()}/start/"), 404, "not_found")
        self.assert_problem(admin.get(f"{PATH}{instance.pk}/start/"), 405, "method_not_allowed")
        assert not Job.objects.exists()

    @pytest.mark.django_db
    def test_tickets(self, admin: Client) -> None:
        instance = running()
        for verb, body in (("console", {}), ("console", {"kind": "serial"}), ("tunnel", {"port": 22})):
            found = admin.post(f"{PATH}{instance.pk}/{verb}/", body)
            assert found.status_code == 200, found.content
            assert found.json()["path"] == f"/ws/stream/{found.json()['ticket']}/"
        for verb, wrong in (
            ("console", {"kind": "telepathy"}),
            ("tunnel", {}),
            ("tunnel", {"port": 65536}),
            ("tunnel", {"port": 22, "ip": "x"}),
        ):
            self.assert_problem(admin.post(f"{PATH}{instance.pk}/{verb}/", wrong), 400)
        self.assert_problem(admin.post(f"{PATH}{InstanceFactory().pk}/console/"), 409, "wrong_state")

    @pytest.mark.django_db
    def test_the_guest(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        instance = running()
        path = f"{PATH}{instance.pk}/guest/"
        said = {"agent_answers": True, "hostname": "web", "addresses": ["192.168.50.3"], "os": "Debian"}
        monkeypatch.setattr(agents, "ask", lambda agent, message: said)
        assert admin.get(path).json() == said
        for problem, status in ((Unavailable("silent", code="agent_silent"), 503), (Conflict("no", code="gone"), 409)):

            def fail(agent: Any, message: Any, problem: Exception = problem) -> None:
                raise problem

            monkeypatch.setattr(agents, "ask", fail)
            self.assert_problem(admin.get(path), status, problem.code)
        Instance.objects.update(state=InstanceState.STOPPED)
        self.assert_problem(admin.get(path), 409, "wrong_state")
