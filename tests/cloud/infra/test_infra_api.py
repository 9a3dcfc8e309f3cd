"""Zones, clusters, hosts and agents as the API shows and changes them."""

from typing import Any

import pytest

from cloud.accounts.services import bootstrap
from cloud.common.models import Availability, Connection
from cloud.infra.models import Agent, Cluster, DesiredSection, Host, Zone
from cloud.jobs.models import Job
from tests.base.api import ListApiTests, Problems, ResourceApiTests
from tests.base.clients import Client, member_client
from tests.cloud.infra.machine import stranger_key
from tests.factories.infra import AgentFactory, ClusterFactory, HostFactory, ZoneFactory


class TestZones(ResourceApiTests):
    prefix = "zones"
    factory = ZoneFactory
    filters = {"availability": lambda row: row.availability}
    create_body = {"name": "north", "description": "the first"}
    update_body = {"name": "south", "description": ""}

    def test_belongs_to_the_platform(self, admin: Client) -> None:
        self.create(admin)
        assert Zone.objects.get().project == bootstrap.admin_project()

    def test_enable_and_disable(self, admin: Client) -> None:
        zone = ZoneFactory()
        for verb, result in (("disable", "disabled"), ("disable", "disabled"), ("enable", "enabled")):
            response = admin.post(self.detail(zone, verb), {})
            assert (response.status_code, response.json()["availability"]) == (200, result)

    def test_not_while_something_is_in_it(self, admin: Client) -> None:
        cluster = ClusterFactory(name="a cluster")
        problem = self.assert_problem(admin.remove(self.detail(cluster.zone)), 409, "in_use")
        assert problem["used_by"][0] == {"kind": "cluster", "count": 1, "names": ["a cluster"]}
        assert problem["advice"]


class TestClusters(ResourceApiTests):
    prefix = "clusters"
    factory = ClusterFactory
    filters = {"zone": lambda row: row.zone_id, "hypervisor": lambda row: row.hypervisor}
    create_body = staticmethod(lambda client: {"name": "rack", "zone": str(ZoneFactory().pk)})

    def test_not_while_hosts_are_in_it(self, admin: Client) -> None:
        host = HostFactory()
        self.assert_problem(admin.remove(self.detail(host.cluster)), 409, "in_use")
        assert Cluster.objects.filter(pk=host.cluster_id).exists()

    def test_a_zone_that_is_not_there(self, admin: Client) -> None:
        body = {"name": "rack", "zone": "00000000-0000-4000-8000-000000000000"}
        problem = self.assert_problem(admin.post(self.path, body), 400)
        assert list(problem["errors"]) == ["zone"]


@pytest.fixture
def _quiet(sent: Any, places: dict[str, Any], store: Any) -> None:
    """Jobs are opened, and stay where they are."""


@pytest.mark.usefixtures("_quiet")
class TestHosts(ResourceApiTests):
    prefix = "hosts"
    factory = HostFactory
    filters = {
        "zone": lambda row: row.cluster.zone_id,
        "cluster": lambda row: row.cluster_id,
        "availability": lambda row: row.availability,
        "connection": lambda row: row.connection,
        "state": lambda row: row.state,
        "address": lambda row: row.address,
    }
    creates_job = deletes_job = True
    create_body = staticmethod(
        lambda client: {"cluster": str(ClusterFactory().pk), "address": "10.8.0.1", "ssh_password": "secret"}
    )

    def test_the_secret_is_nowhere(self, admin: Client, store: Any) -> None:
        response = self.create(admin, ssh_password="very-secret-word")
        assert "very-secret-word" not in response.content.decode()
        job = Job.objects.get()
        assert "very-secret-word" not in str(job.context)
        (key,) = store.keys("mica:secret:*")
        assert "very-secret-word" not in store.get(key)
        assert 0 < store.ttl(key) <= 900
        host = Host.objects.get()
        assert (host.name, host.activity, host.connection) == ("10.8.0.1", "adding", Connection.CONNECTING)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"address": "127.0.0.1"}, "address"),
            ({"address": "::1"}, "address"),
            ({"address": "::ffff:127.0.0.1"}, "address"),
            ({"address": "0.0.0.0"}, "address"),
            ({"address": "localhost"}, "address"),
            ({"address": "a.localhost."}, "address"),
            ({"address": "2130706433"}, "address"),
            ({"address": "127.1"}, "address"),
            ({"address": "10.0.0.1; reboot"}, "address"),
            ({"address": "-oProxyCommand=x"}, "address"),
            ({"address": "http://10.0.0.1/"}, "address"),
            ({"ssh_port": 0}, "ssh_port"),
            ({"ssh_port": 65536}, "ssh_port"),
            ({"ssh_user": "root; id"}, "ssh_user"),
            ({"ssh_user": "-l"}, "ssh_user"),
            ({"ssh_password": "two\nlines"}, "ssh_password"),
            ({"ssh_private_key": stranger_key()}, "ssh_password"),
            ({"ssh_password": None}, "ssh_password"),
            ({"host_key_fingerprint": "MD5:aa"}, "host_key_fingerprint"),
        ],
    )
    def test_refused_at_once(self, admin: Client, change: dict[str, Any], field: str) -> None:
        problem = self.assert_problem(self.create(admin, **change), 400)
        assert list(problem["errors"]) == [field]
        assert not Host.objects.exists()

    def test_neither_secret(self, admin: Client) -> None:
        body = self.body("create_body", admin)
        del body["ssh_password"]
        self.assert_problem(admin.post(self.path, body), 400, "invalid_ssh_password")

    def test_a_key_that_is_none(self, admin: Client) -> None:
        body = {**self.body("create_body", admin), "ssh_private_key": "nonsense"}
        del body["ssh_password"]
        self.assert_problem(admin.post(self.path, body), 400, "invalid_ssh_private_key")

    def test_the_same_address_twice(self, admin: Client) -> None:
        self.create(admin)
        problem = self.assert_problem(self.create(admin), 409, "address_in_use")
        assert problem["advice"]
        assert Host.objects.count() == Agent.objects.count() == 1

    @pytest.mark.parametrize(
        ("given", "kept"), [("HOST-1.Example.ORG.", "host-1.example.org"), ("fd00:0::1", "fd00::1")]
    )
    def test_addresses_are_kept_in_one_form(self, admin: Client, given: str, kept: str) -> None:
        assert self.create(admin, address=given).status_code == 202
        assert Host.objects.get().address == kept

    def test_busy_while_it_is_added(self, admin: Client) -> None:
        self.create(admin)
        host = Host.objects.get()
        problem = self.assert_problem(admin.remove(self.detail(host)), 409, "busy")
        assert problem["advice"]

    def test_detail(self, admin: Client) -> None:
        host = HostFactory(agent__facts={"cpu_flags": ["vmx"]})
        body = admin.get(self.detail(host)).json()
        assert body["facts"] == {"cpu_flags": ["vmx"]}
        assert body["agent"]["url"] == f"/api/v1/agents/{host.agent_id}/"
        assert body["cluster"]["uuid"] == str(host.cluster_id)
        assert body["zone"]["uuid"] == str(host.cluster.zone_id)
        assert body["capacity"]["cpu_limit"] == 40
        assert body["capacity"]["memory_limit_bytes"] == 8 << 30

    def test_without_capacity_and_with_a_reason(self, admin: Client) -> None:
        host = HostFactory(has_capacity=False, connection=Connection.DISCONNECTED, connection_reason="agent_silent")
        body = admin.get(self.detail(host)).json()
        assert body["capacity"] is None
        assert "15 seconds" in body["connection_reason"]

    def test_verbs(self, admin: Client, tenant: Client) -> None:
        host = HostFactory()
        assert admin.post(self.detail(host, "disable"), {}).json()["availability"] == Availability.DISABLED
        assert not Host.objects.taking_work().exists()
        assert admin.post(self.detail(host, "enable"), {}).json()["availability"] == Availability.ENABLED
        response = admin.post(self.detail(host, "reconnect"), {"ssh_password": "secret"})
        assert response.status_code == 202
        assert response.json()["job"] == f"/api/v1/jobs/{Job.objects.get().pk}/"
        self.assert_problem(admin.post(self.detail(host, "reconnect"), {"ssh_password": "secret"}), 409, "busy")
        for verb in ("enable", "disable", "reconnect"):
            self.assert_problem(tenant.post(self.detail(host, verb), {}), 404, "not_found")


class TestAgents(ListApiTests):
    prefix = "agents"
    factory = AgentFactory
    filters = {"kind": lambda row: row.kind, "connection": lambda row: row.connection}

    def test_what_it_holds_and_nothing_secret(self, admin: Client) -> None:
        agent = AgentFactory(metrics_token_sealed="sealed-text", redis_password_hash="b" * 64)
        failure = {"nature": "rejected", "code": "no_such_interface", "detail": "eth9", "number": 2}
        parts = {"a-network": {"nature": "rejected", "code": "dhcp_refused", "detail": "dnsmasq does not start"}}
        numbers = {"section": "networks", "wanted": 2, "held": 1}
        DesiredSection.objects.create(agent=agent, failure=failure, failures=parts, **numbers)
        response = admin.get(self.detail(agent))
        assert response.json()["sections"] == [{**numbers, "failure": failure, "failures": parts, "sent_at": None}]
        assert "sealed-text" not in response.content.decode()
        assert "bbbb" not in response.content.decode()

    def test_read_only(self, admin: Client) -> None:
        agent = AgentFactory()
        self.assert_problem(admin.delete(self.detail(agent)), 405)
        self.assert_problem(admin.post(self.path, {}), 405)


@pytest.mark.django_db
def test_who_only_looks_may_not_change(admin: Client) -> None:
    auditor = member_client("auditor")
    zone = ZoneFactory()
    assert auditor.get(f"/api/v1/zones/{zone.pk}/").status_code == 200
    for call in (
        lambda: auditor.patch(f"/api/v1/zones/{zone.pk}/", {"name": "x"}),
        lambda: auditor.delete(f"/api/v1/zones/{zone.pk}/"),
        lambda: auditor.post(f"/api/v1/zones/{zone.pk}/disable/", {}),
        lambda: auditor.post("/api/v1/zones/", {"name": "x"}),
    ):
        Problems.assert_problem(call(), 403, "not_permitted")
