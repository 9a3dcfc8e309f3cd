"""Deletions are looked at before they are done, and done only as they were shown."""

from typing import Any

import pytest
from django.core import signing

from cloud.accounts.models import Account
from cloud.common import deletion
from cloud.infra.models import Zone
from compute.models import Instance
from storage.models import Image
from tests.base.api import NOBODYS, Problems
from tests.base.clients import Client, member_client
from tests.factories.accounts import AccountFactory, ProjectFactory, UserFactory
from tests.factories.compute import InstanceFactory, InstanceOfferingFactory
from tests.factories.infra import ClusterFactory, HostFactory, ZoneFactory
from tests.factories.storage import BackupStorageFactory, ImageFactory, PrimaryStorageFactory, VolumeFactory
from tests.network import factories as networks

# What is important enough to be looked at first.
IMPORTANT: dict[str, Any] = {
    "zones": ZoneFactory,
    "clusters": ClusterFactory,
    "hosts": HostFactory,
    "primary-storages": PrimaryStorageFactory,
    "backup-storages": BackupStorageFactory,
    "images": ImageFactory,
    "l2-networks": lambda: networks.no_vlan(ZoneFactory()),
    "l3-networks": lambda: networks.l3(),
    "accounts": lambda: ProjectFactory().account,
}


def look(client: Client, path: str) -> dict[str, Any]:
    response = client.delete(f"{path}?dry_run=1")
    assert response.status_code == 200, response.content
    body: dict[str, Any] = response.json()
    return body


def told(preview: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(effect["kind"], effect["effect"]): effect["count"] for effect in preview["effects"]}


@pytest.mark.django_db
class TestPreviews(Problems):
    @pytest.mark.parametrize("prefix", IMPORTANT)
    def test_important_ones_need_a_look(self, admin: Client, prefix: str) -> None:
        row = IMPORTANT[prefix]()
        path = f"/api/v1/{prefix}/{row.pk}/"
        problem = self.assert_problem(admin.delete(path), 428, "preview_required")
        assert "dry_run" in problem["advice"]
        assert type(row)._default_manager.filter(pk=row.pk).exists()
        seen = look(admin, path)
        assert seen["is_possible"] is True
        assert seen["results"][0]["uuid"] == str(row.pk)
        response = admin.delete(path, headers={"X-Preview-Token": seen["token"]})
        assert response.status_code in (202, 204), response.content

    def test_what_stands_in_the_way(self, admin: Client) -> None:
        cluster = ClusterFactory(name="rack")
        PrimaryStorageFactory(zone=cluster.zone)
        networks.no_vlan(cluster.zone)
        seen = look(admin, f"/api/v1/zones/{cluster.zone_id}/")
        assert told(seen) == {
            ("zone", "lost"): 1,
            ("cluster", "blocks"): 1,
            ("primary_storage", "blocks"): 1,
            ("l2_network", "blocks"): 1,
        }
        assert (seen["is_possible"], seen["results"][0]["code"]) == (False, "in_use")
        sample = next(effect["sample"] for effect in seen["effects"] if effect["kind"] == "cluster")
        assert sample == [{"uuid": str(cluster.pk), "name": "rack", "url": f"/api/v1/clusters/{cluster.pk}/"}]
        problem = self.assert_problem(admin.remove(f"/api/v1/zones/{cluster.zone_id}/"), 409, "in_use")
        assert problem["used_by"][0]["count"] == 1

    def test_what_goes_into_the_bin_and_what_is_lost(self, admin: Client) -> None:
        instance = InstanceFactory()
        VolumeFactory(instance_uuid=instance.pk)
        networks.nic(instance_uuid=instance.pk)
        path = f"/api/v1/instances/{instance.pk}/"
        assert told(look(admin, path)) == {
            ("instance", "recycled"): 1,
            ("volume", "recycled"): 1,
            ("nic", "recycled"): 1,
        }
        Instance.objects.filter(pk=instance.pk).update(state="destroyed")
        seen = admin.post(f"{path}expunge/?dry_run=1", {}).json()
        assert told(seen) == {("instance", "lost"): 1, ("volume", "lost"): 1, ("nic", "lost"): 1}
        assert Instance.objects.get().activity == ""
        assert admin.post(f"{path}expunge/", {}, headers={"X-Preview-Token": seen["token"]}).status_code == 202

    def test_what_only_lets_go(self, admin: Client) -> None:
        offering = InstanceOfferingFactory()
        InstanceFactory(instance_offering=offering)
        seen = look(admin, f"/api/v1/instance-offerings/{offering.pk}/")
        assert told(seen) == {("instance_offering", "lost"): 1, ("instance", "detaches"): 1}
        assert admin.delete(f"/api/v1/instance-offerings/{offering.pk}/").status_code == 204

    def test_an_instance_that_left_its_host_counts_once(self, admin: Client) -> None:
        host = HostFactory()
        InstanceFactory.running(place=host)
        Instance.objects.update(last_host=host)
        InstanceFactory(place=host)
        assert told(look(admin, f"/api/v1/hosts/{host.pk}/"))["instance", "blocks"] == 2
        assert "2 × instance" in self.assert_problem(admin.remove(f"/api/v1/hosts/{host.pk}/"), 409)["detail"]

    def test_accounts_with_all_that_is_theirs(self, admin: Client) -> None:
        project = ProjectFactory()
        UserFactory(account=project.account)
        path = f"/api/v1/accounts/{project.account_id}/"
        assert told(look(admin, path)) == {("account", "lost"): 1, ("project", "lost"): 1, ("user", "lost"): 1}
        ImageFactory(project=project)
        assert told(look(admin, path))["image", "blocks"] == 1
        self.assert_problem(admin.remove(path), 409, "in_use")
        assert Account.objects.filter(pk=project.account_id).exists()

    def test_others_do_not_look(self, admin: Client, tenant: Client) -> None:
        zone = ZoneFactory()
        self.assert_problem(tenant.delete(f"/api/v1/zones/{zone.pk}/?dry_run=1"), 404, "not_found")
        onlooker = member_client("auditor")
        self.assert_problem(onlooker.delete(f"/api/v1/zones/{zone.pk}/?dry_run=1"), 403, "not_permitted")
        self.assert_problem(admin.delete(f"/api/v1/zones/{NOBODYS}/?dry_run=1"), 404, "not_found")
        self.assert_problem(admin.delete(f"/api/v1/zones/{zone.pk}/?dry_run=perhaps"), 400)


@pytest.mark.django_db
class TestTokens(Problems):
    def test_a_change_in_between(self, admin: Client) -> None:
        image = ImageFactory()
        VolumeFactory(image=image)
        path = f"/api/v1/images/{image.pk}/"
        token = {"headers": {"X-Preview-Token": look(admin, path)["token"]}}
        VolumeFactory(image=image)
        problem = self.assert_problem(admin.delete(path, **token), 409, "preview_stale")
        assert problem["difference"] == [{"kind": "volume", "effect": "stays", "before": 1, "now": 2}]
        assert Image.objects.get().state == "ready"

    def test_one_for_another_of_the_same_number(self, admin: Client) -> None:
        image = ImageFactory()
        volume = VolumeFactory(image=image)
        path = f"/api/v1/images/{image.pk}/"
        token = {"headers": {"X-Preview-Token": look(admin, path)["token"]}}
        volume.delete()
        VolumeFactory(image=image)
        problem = self.assert_problem(admin.delete(path, **token), 409, "preview_stale")
        assert problem["difference"] == [{"kind": "volume", "effect": "stays", "before": 1, "now": 1}]

    def test_too_late(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        path = f"/api/v1/zones/{ZoneFactory().pk}/"
        token = {"headers": {"X-Preview-Token": look(admin, path)["token"]}}
        monkeypatch.setattr(deletion, "GOOD_FOR_S", -1)
        problem = self.assert_problem(admin.delete(path, **token), 409, "preview_stale")
        assert problem["difference"] == []

    def test_of_something_else(self, admin: Client) -> None:
        zone, other = ZoneFactory(), ZoneFactory()
        token = look(admin, f"/api/v1/zones/{other.pk}/")["token"]
        person = Client(UserFactory(account=AccountFactory()))
        assert person.user is not None
        for word in (token, "nonsense", signing.dumps(["x", []], salt="mica.deletion"), ""):
            response = admin.delete(f"/api/v1/zones/{zone.pk}/", headers={"X-Preview-Token": word})
            self.assert_problem(response, 400, "bad_preview_token")
        assert Zone.objects.filter(pk=zone.pk).exists()

    def test_of_somebody_else(self, admin: Client) -> None:
        zone = ZoneFactory()
        other = member_client("platform_admin")
        token = look(other, f"/api/v1/zones/{zone.pk}/")["token"]
        response = admin.delete(f"/api/v1/zones/{zone.pk}/", headers={"X-Preview-Token": token})
        self.assert_problem(response, 400, "bad_preview_token")
