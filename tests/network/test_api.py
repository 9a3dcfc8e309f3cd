"""The API of networks."""

from typing import Any

import pytest

from network.models import IpAddress
from tests.base.api import ListApiTests, Problems, ResourceApiTests
from tests.base.clients import Client
from tests.network import factories as make


class TestL2Networks(ResourceApiTests):
    prefix = "l2-networks"
    factory = staticmethod(make.no_vlan)
    filters = {"zone": lambda row: row.zone_id, "kind": lambda row: row.kind}

    @staticmethod
    def create_body(_client: Client) -> dict[str, Any]:
        return {"name": "provider", "zone": str(make.zone().pk), "kind": "no_vlan", "physical_interface": "eth2"}


class TestL3Networks(ResourceApiTests):
    prefix = "l3-networks"
    factory = staticmethod(make.l3)
    filters = {"l2": lambda row: row.l2_id, "kind": lambda row: row.kind}
    update_body = {"name": "other", "dns": ["10.0.0.53"], "domain": "zone.test"}

    @staticmethod
    def create_body(_client: Client) -> dict[str, Any]:
        return {"name": "flat", "l2": str(make.no_vlan().pk), "ranges": [{"cidr": "10.0.0.0/24"}]}


class TestIpRanges(ResourceApiTests):
    prefix = "ip-ranges"
    factory = staticmethod(make.ip_range)
    filters = {"l3": lambda row: row.l3_id}

    @staticmethod
    def create_body(_client: Client) -> dict[str, Any]:
        return {"l3": str(make.l3(cidr="").pk), "start": "10.0.0.10", "end": "10.0.0.20", "prefix": 24}


class TestIpAddresses(ListApiTests):
    prefix = "ip-addresses"
    factory = staticmethod(make.ip_address)
    filters = {
        "l3": lambda row: row.l3_id,
        "purpose": lambda row: row.purpose,
        "holder": lambda row: row.holder,
        "address": lambda row: row.address,
    }


class TestNics(ListApiTests):
    prefix = "nics"
    factory = staticmethod(make.nic)
    filters = {"l3": lambda row: row.l3_id, "instance_uuid": lambda row: row.instance_uuid, "mac": lambda row: row.mac}

    @staticmethod
    def search(row: Any) -> str:  # type: ignore[override]
        return str(row.mac)


@pytest.mark.django_db
class TestActs(Problems):
    def test_vxlan_from_pool_to_guests_address(self, admin: Client) -> None:
        cluster = make.cluster()
        pool = admin.post(
            "/api/v1/l2-networks/",
            {
                "name": "pool",
                "zone": str(cluster.zone_id),
                "kind": "vxlan_pool",
                "vtep_cidr": "10.99.1.0/24",
                "vni_ranges": [{"start": 100, "end": 101}],
                "clusters": [str(cluster.pk)],
            },
        ).json()
        assert pool["vni_ranges"] == [{"start": 100, "end": 101}]
        body = {"name": "net", "zone": str(cluster.zone_id), "kind": "vxlan", "pool": pool["uuid"]}
        network = admin.post("/api/v1/l2-networks/", body).json()
        assert (network["vni"], network["mtu"], network["clusters"]) == (100, 1450, [str(cluster.pk)])
        detached = admin.post(f"{network['url']}detach/", {"cluster": str(cluster.pk)})
        assert detached.json()["clusters"] == []
        attached = admin.post(f"{network['url']}attach/", {"cluster": str(cluster.pk)})
        assert attached.json()["clusters"] == [str(cluster.pk)]
        more = admin.post(f"{pool['url']}add-vni-range/", {"start": 200, "end": 300})
        assert more.json()["vni_ranges"] == [{"start": 100, "end": 101}, {"start": 200, "end": 300}]

    def test_range_conflict_names_the_field(self, admin: Client) -> None:
        made = make.l3()
        body = {"l3": str(made.pk), "cidr": "192.168.50.0/24"}
        problem = self.assert_problem(admin.post("/api/v1/ip-ranges/", body), 409, "range_overlap")
        assert "start" in problem["errors"]
        problem = self.assert_problem(admin.post("/api/v1/ip-ranges/", {"l3": str(made.pk)}), 400)
        assert "cidr" in problem["errors"]

    def test_reserve_release_and_check(self, admin: Client) -> None:
        made = make.l3()
        path = f"/api/v1/l3-networks/{made.pk}/"
        body = {"start": "192.168.50.10", "end": "192.168.50.12", "note": "printers"}
        assert admin.post(f"{path}reserve-addresses/", body).status_code == 200
        found = admin.get(f"{path}check-address/", {"ip": "192.168.50.11"}).json()
        assert (found["is_reserved"], found["is_available"], found["used_by"]["name"]) == (True, False, "printers")
        assert admin.post(f"{path}release-addresses/", {"start": "192.168.50.11"}).status_code == 200
        found = admin.get(f"{path}check-address/", {"ip": "192.168.50.11", "probe": "false"}).json()
        assert (found["is_available"], found["is_answering"], found["next_free"]) == (True, None, "192.168.50.3")
        assert IpAddress.objects.filter(purpose="reserved").count() == 2

    def test_check_refuses_nonsense(self, admin: Client, tenant: Client, anonymous: Client) -> None:
        path = f"/api/v1/l3-networks/{make.l3().pk}/check-address/"
        self.assert_problem(admin.get(path), 400)
        self.assert_problem(admin.get(path, {"ip": "nonsense"}), 400, "not_an_address")
        self.assert_problem(admin.get(path, {"ip": "192.168.50.7", "nonsense": "1"}), 400, "unknown_field")
        self.assert_problem(tenant.get(path, {"ip": "192.168.50.7"}), 404, "not_found")
        self.assert_problem(anonymous.get(path, {"ip": "192.168.50.7"}), 401, "not_signed_in")
