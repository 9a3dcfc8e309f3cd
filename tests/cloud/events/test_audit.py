"""The operation log."""

import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import transaction
from django.utils import timezone

from cloud.accounts.models import Project
from cloud.accounts.services import projects
from cloud.common.actor import Actor
from cloud.events.models import AuditRecord
from cloud.events.services import audit, retention
from tests.base.api import ListApiTests
from tests.base.clients import Client, member_client
from tests.factories.accounts import ProjectFactory


def make_record(**fields: object) -> AuditRecord:
    return AuditRecord.objects.create(
        **{"action": "thing.do", "actor_name": f"actor-{uuid.uuid4().hex}", "resource_uuid": uuid.uuid4(), **fields}
    )


class TestAuditRecords(ListApiTests):
    prefix = "audit-records"
    factory = staticmethod(make_record)
    has_project = False
    search = staticmethod(lambda record: record.actor_name)
    orderings = ("created_at",)
    filters = {
        "action": lambda record: record.action,
        "actor_name": lambda record: record.actor_name,
        "resource": lambda record: record.resource_uuid,
        "result": lambda record: record.result,
        "since": lambda record: (record.created_at - timedelta(seconds=1)).isoformat(),
        "until": lambda record: (record.created_at + timedelta(seconds=1)).isoformat(),
    }

    def test_is_read_only(self, admin: Client) -> None:
        made = self.make(admin)
        for method in (admin.patch, admin.delete, admin.put):
            self.assert_problem(method(self.detail(made), {}), 405, "method_not_allowed")
        self.assert_problem(admin.post(self.path, {}), 405, "method_not_allowed")

    def test_tenants_see_what_concerns_them(self, tenant: Client) -> None:
        mine = make_record(project_uuid=tenant.project.pk)
        own = make_record(actor_uuid=tenant.user.pk)
        make_record(project_uuid=ProjectFactory().pk)
        assert set(self.rows(tenant)) == {str(mine.pk), str(own.pk)}

    def test_auditors_see_all_and_do_nothing(self) -> None:
        auditor = member_client("auditor")
        made = make_record()
        assert str(made.pk) in self.rows(auditor)
        self.assert_problem(auditor.post("/api/v1/accounts/", {"name": "x"}), 403, "not_permitted")


@pytest.mark.django_db
class TestRecord:
    def test_keeps_names(self, actor: Actor) -> None:
        made = ProjectFactory()

        class Thing:
            kind, pk, project = "thing", uuid.uuid4(), made

            def __str__(self) -> str:
                return "t1"

        record = audit.record("thing.do", actor=actor, resource=Thing(), detail={"n": 1})
        Project.objects.all().delete()
        record.refresh_from_db()
        assert (record.resource_type, record.resource_name, record.project_name) == ("thing", "t1", made.name)
        assert record.result == "succeeded"

    def test_goes_with_the_act(self, actor: Actor) -> None:
        made = ProjectFactory()

        @transaction.atomic
        def act_and_fail() -> None:
            projects.update(made, actor=actor, name="other")
            raise RuntimeError

        with pytest.raises(RuntimeError):
            act_and_fail()
        assert not AuditRecord.objects.exists()

    def test_settles_with_its_job(self, actor: Actor) -> None:
        job = SimpleNamespace(pk=uuid.uuid4())
        record = audit.record("thing.do", actor=actor, job=job)
        other = audit.record("thing.do", actor=actor, job=SimpleNamespace(pk=uuid.uuid4()))
        assert record.result == "accepted"
        audit.settle(job.pk, "failed", detail={"code": "no_host_fits"})
        audit.settle(job.pk, "succeeded")
        record.refresh_from_db()
        other.refresh_from_db()
        assert (record.result, record.detail) == ("failed", {"code": "no_host_fits"})
        assert other.result == "accepted"

    def test_old_records_go_in_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "BATCH", 2)
        for _ in range(5):
            make_record()
        AuditRecord.objects.update(created_at=timezone.now() - timedelta(days=10))
        kept = make_record()
        assert retention.sweep(timedelta(days=9)) == 5
        assert list(AuditRecord.objects.all()) == [kept]
