"""Storage through the API: each resource's lists and acts, and the problems a caller meets."""

import uuid
from typing import Any

import pytest

from cloud.infra.services import enrolment
from cloud.jobs.models import Job
from storage.models import Image, ImageState, PrimaryStorage
from tests.base.api import Problems, ResourceApiTests
from tests.base.clients import Client, member_client
from tests.factories.infra import ClusterFactory, ZoneFactory
from tests.factories.storage import (
    GIB,
    BackupStorageFactory,
    DiskOfferingFactory,
    ImageFactory,
    PrimaryStorageFactory,
    VolumeFactory,
    storage_on,
)

NOBODYS = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def _no_redis(monkeypatch: Any) -> None:
    monkeypatch.setattr(enrolment.secrets, "keep", lambda document: "secret-id")


def attached_to(storage: PrimaryStorage) -> Any:
    """A cluster that the storage is attached to."""
    cluster = ClusterFactory(zone=storage.zone)
    storage.clusters.add(cluster)
    return cluster


class TestPrimaryStorages(ResourceApiTests):
    prefix = "primary-storages"
    factory = PrimaryStorageFactory
    filters = {
        "kind": lambda row: row.kind,
        "zone": lambda row: str(row.zone_id),
        "cluster": lambda row: str(attached_to(row).pk),
        "state": lambda row: row.state,
        "availability": lambda row: row.availability,
        "connection": lambda row: row.connection,
    }
    creates_job = deletes_job = True

    @staticmethod
    def create_body(client: Client) -> dict[str, Any]:
        return {"name": "local", "zone": str(ZoneFactory().pk), "path": "/srv/primary"}

    def test_create_needs_the_right(self, anonymous: Client, db: None) -> None:
        caller = member_client("monitor_only")
        body = {"name": "local", "zone": str(ZoneFactory(project=caller.project).pk), "path": "/srv/primary"}
        self.assert_problem(anonymous.post(self.path, body), 401, "not_signed_in")
        self.assert_problem(caller.post(self.path, body), 403, "not_permitted")

    def test_capacity_is_summed_over_hosts(self, admin: Client) -> None:
        storage = storage_on(total_bytes=50 * GIB).primary_storage
        for path in (self.path, self.detail(storage)):
            body = admin.get(path).json()
            row = body["results"][0] if "results" in body else body
            assert (row["total_bytes"], row["available_bytes"], row["used_bytes"]) == (50 * GIB, 50 * GIB, 0)
        assert body["hosts"][0]["total_bytes"] == 50 * GIB
        assert body["hosts"][0]["host"]["name"]
        assert len(body["clusters"]) == 1

    def test_attach_detach_enable_disable(self, admin: Client) -> None:
        storage = PrimaryStorageFactory()
        cluster = ClusterFactory(zone=storage.zone)
        answer = admin.post(self.detail(storage, "attach"), {"cluster": str(cluster.pk)})
        assert answer.status_code == 202, answer.content
        self.assert_problem(admin.post(self.detail(storage, "detach"), {"cluster": str(cluster.pk)}), 409, "busy")
        self.assert_problem(admin.post(self.detail(storage, "attach"), {"cluster": NOBODYS}), 400)
        assert admin.post(self.detail(storage, "disable")).json()["availability"] == "disabled"
        assert admin.post(self.detail(storage, "enable")).json()["availability"] == "enabled"

    def test_a_bad_path(self, admin: Client) -> None:
        body = {**self.create_body(admin), "path": "/etc"}
        problem = self.assert_problem(admin.post(self.path, body), 400, "bad_path")
        assert problem["errors"]["path"]
        assert problem["advice"]
        assert not PrimaryStorage.objects.exists()


class TestBackupStorages(ResourceApiTests):
    prefix = "backup-storages"
    factory = BackupStorageFactory
    filters = {"state": lambda row: row.state, "connection": lambda row: row.connection}
    create_body = {"name": "images", "address": "10.99.0.21", "path": "/srv/images", "ssh_password": "secret word"}
    creates_job = deletes_job = True

    def test_the_secret_is_nowhere(self, admin: Client) -> None:
        answer = admin.post(self.path, self.create_body)
        assert b"secret word" not in answer.content
        assert "secret word" not in str(Job.objects.values_list("context", flat=True))

    def test_without_credentials(self, admin: Client) -> None:
        body = {name: text for name, text in self.create_body.items() if name != "ssh_password"}
        problem = self.assert_problem(admin.post(self.path, body), 400, "invalid_ssh_password")
        assert problem["errors"]["ssh_password"]

    def test_one_machine_is_one_server(self, admin: Client) -> None:
        admin.post(self.path, self.create_body)
        self.assert_problem(admin.post(self.path, self.create_body), 409, "address_in_use")

    def test_not_deleted_while_images_are_there(self, admin: Client) -> None:
        server = ImageFactory().backup_storage
        problem = self.assert_problem(admin.remove(self.detail(server)), 409, "in_use")
        assert problem["used_by"][0]["kind"] == "image"

    def test_reconnect(self, admin: Client) -> None:
        server = BackupStorageFactory()
        assert admin.post(self.detail(server, "reconnect"), {"ssh_password": "x"}).status_code == 202
        self.assert_problem(admin.post(self.detail(server, "reconnect"), {"nonsense": 1}), 400, "unknown_field")


class TestImages(ResourceApiTests):
    prefix = "images"
    factory = ImageFactory
    filters = {
        "state": lambda row: row.state,
        "media": lambda row: row.media,
        "format": lambda row: row.format,
        "backup_storage": lambda row: str(row.backup_storage_id),
    }
    update_body = {"name": "another", "platform": "windows", "has_guest_agent": True}
    creates_job = True
    can_delete = False  # into the recycle bin: tested below

    @staticmethod
    def create_body(client: Client) -> dict[str, Any]:
        BackupStorageFactory()
        return {"name": "debian", "url": "http://203.0.113.1/debian.qcow2"}

    def test_bin_recover_expunge(self, admin: Client) -> None:
        image = ImageFactory()
        assert admin.remove(self.detail(image)).status_code == 204
        assert admin.get(self.detail(image)).json()["state"] == "deleted"
        self.assert_problem(admin.remove(self.detail(image)), 409, "wrong_state")
        assert admin.post(self.detail(image, "recover")).json()["state"] == "ready"
        self.assert_problem(admin.post(self.detail(image, "expunge")), 409, "wrong_state")
        admin.remove(self.detail(image))
        assert admin.post(self.detail(image, "expunge")).status_code == 202
        assert admin.get(self.detail(image)).json()["activity"] == "expunging"
        self.assert_problem(admin.post(self.detail(image, "recover")), 409, "busy")

    def test_what_is_shown(self, admin: Client) -> None:
        body = admin.get(self.detail(ImageFactory(checksum="md5:" + "0" * 32))).json()
        assert body["source_url"] == "http://203.0.113.1/image.qcow2"
        assert body["url"].startswith("/api/v1/images/")
        assert body["checksum"] == "md5:" + "0" * 32

    def test_bad_input(self, admin: Client) -> None:
        BackupStorageFactory()
        for field, wrong in (
            ("url", "http://user:pw@203.0.113.1/x"),
            ("url", "nonsense"),
            ("checksum", "crc:1"),
            ("media", "tape"),
            ("format", "zip"),
            ("name", ""),
            ("backup_storage", NOBODYS),
        ):
            body = {"name": "debian", "url": "http://203.0.113.1/x", field: wrong}
            problem = self.assert_problem(admin.post(self.path, body), 400)
            assert problem["errors"][field]
        assert not Image.objects.exists()

    def test_no_image_server(self, admin: Client) -> None:
        body = {"name": "debian", "url": "http://203.0.113.1/x"}
        assert self.assert_problem(admin.post(self.path, body), 409, "no_image_server")["advice"]

    def test_a_tenant_adds_ones_own(self, tenant: Client) -> None:
        BackupStorageFactory()
        answer = tenant.post(self.path, {"name": "mine", "url": "http://203.0.113.1/x"})
        assert answer.status_code == 202
        image = Image.objects.get()
        assert (image.project, image.state) == (tenant.project, ImageState.DOWNLOADING)
        assert tenant.get(self.detail(image)).status_code == 200
        self.assert_problem(member_client().get(self.detail(image)), 404)


class TestDiskOfferings(ResourceApiTests):
    prefix = "disk-offerings"
    factory = DiskOfferingFactory
    orderings = ("created_at", "name", "size_bytes")
    filters = {"availability": lambda row: row.availability}
    create_body = {"name": "large", "size_bytes": 100 * GIB, "read_iops": 1000}

    def test_sizes(self, admin: Client) -> None:
        for size in (0, -1, 2**63, "x", 1.5, True):
            problem = self.assert_problem(admin.post(self.path, {"name": "x", "size_bytes": size}), 400)
            assert problem["errors"]["size_bytes"]

    def test_enable_disable(self, admin: Client) -> None:
        offering = DiskOfferingFactory()
        assert admin.post(self.detail(offering, "disable")).json()["availability"] == "disabled"
        assert admin.post(self.detail(offering, "enable")).json()["availability"] == "enabled"


class TestVolumes(ResourceApiTests):
    prefix = "volumes"
    factory = VolumeFactory
    orderings = ("created_at", "name", "size_bytes")
    filters = {
        "kind": lambda row: row.kind,
        "state": lambda row: row.state,
        "primary_storage": lambda row: str(row.primary_storage_id),
        "instance_uuid": lambda row: str(row.instance_uuid),
    }
    can_delete = False

    def test_neither_created_nor_deleted_here(self, admin: Client) -> None:
        volume = VolumeFactory()
        self.assert_problem(admin.post(self.path, {"name": "x"}), 405)
        self.assert_problem(admin.delete(self.detail(volume)), 405)


class TestUnknown(Problems):
    @pytest.mark.django_db
    def test_acts_on_what_is_not_there(self, admin: Client) -> None:
        for path in ("primary-storages", "backup-storages", "images", "disk-offerings"):
            self.assert_problem(admin.delete(f"/api/v1/{path}/{uuid.uuid4()}/"), 404, "not_found")
