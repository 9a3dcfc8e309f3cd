"""`Idempotency-Key`: once, the same answer, also when two come at once."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from cloud.accounts.models import Account, ApiToken
from cloud.common.api.idempotency import Answer
from cloud.events.models import AuditRecord, IdempotencyRecord
from cloud.events.services import answers, retention
from tests.base.api import Problems
from tests.base.clients import Client
from tests.factories.accounts import ProjectFactory
from tests.factories.infra import ZoneFactory

KEY = {"headers": {"Idempotency-Key": "k1"}}


@pytest.mark.django_db
class TestDoor(Problems):
    path = "/api/v1/accounts/"

    def test_once(self, admin: Client) -> None:
        first = admin.post(self.path, {"name": "one"}, **KEY)
        again = admin.post(self.path, {"name": "one"}, **KEY)
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        assert Account.objects.filter(name="one").count() == 1

    def test_a_failure_is_not_remembered(self, admin: Client) -> None:
        Account.objects.create(name="one")
        self.assert_problem(admin.post(self.path, {"name": "one"}, **KEY), 409, "name_taken")
        Account.objects.filter(name="one").delete()
        assert admin.post(self.path, {"name": "one"}, **KEY).status_code == 201

    def test_keys_belong_to_their_user(self, admin: Client) -> None:
        other = Client(type(admin.user).objects.create(account=admin.user.account, username="second"))
        assert admin.post(self.path, {"name": "one"}, **KEY).status_code == 201
        self.assert_problem(other.post(self.path, {"name": "one"}, **KEY), 403, "not_permitted")

    def test_bad_keys(self, admin: Client) -> None:
        for key in ("", "x" * 256, "a\tb"):
            response = admin.post(self.path, {"name": "one"}, headers={"Idempotency-Key": key})
            self.assert_problem(response, 400, "bad_idempotency_key")

    def test_changes_and_deletions_too(self, admin: Client) -> None:
        zone = ZoneFactory()
        path = f"/api/v1/zones/{zone.pk}/"
        first, again = (admin.patch(path, {"name": "new"}, **KEY) for _ in range(2))
        assert again.json() == first.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        assert AuditRecord.objects.filter(action="zone.update").count() == 1
        token = admin.delete(f"{path}?dry_run=1").json()["token"]
        key = {"headers": {"Idempotency-Key": "k2", "X-Preview-Token": token}}
        assert [admin.delete(path, **key).status_code for _ in range(3)] == [204, 204, 204]
        assert AuditRecord.objects.filter(action="zone.delete").count() == 1

    def test_a_key_is_of_the_project_it_was_sent_in(self, admin: Client) -> None:
        project = ProjectFactory(account=admin.user.account)
        other = Client(admin.user, project=project)
        assert admin.post(self.path, {"name": "one"}, **KEY).status_code == 201
        self.assert_problem(other.post(self.path, {"name": "one"}, **KEY), 422, "idempotency_key_reused")

    def test_where_nothing_is_made(self, admin: Client) -> None:
        self.assert_problem(admin.post("/api/v1/audit-records/", {}, **KEY), 405, "method_not_allowed")

    def test_a_secret_is_not_kept_readable(self, admin: Client) -> None:
        body = {"name": "t"}
        first = admin.post("/api/v1/api-tokens/", body, **KEY)
        again = admin.post("/api/v1/api-tokens/", body, **KEY)
        secret = first.json()["token"]
        assert again.json()["token"] == secret
        assert secret.encode() not in bytes(IdempotencyRecord.objects.get().answer)
        assert ApiToken.objects.filter(name="t").count() == 1

    def test_after_a_day_a_key_is_fresh(self, admin: Client) -> None:
        admin.post(self.path, {"name": "one"}, **KEY)
        IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))
        self.assert_problem(admin.post(self.path, {"name": "one"}, **KEY), 409, "name_taken")
        assert admin.post(self.path, {"name": "two"}, **KEY).status_code == 201

    def test_sweep(self, admin: Client) -> None:
        admin.post(self.path, {"name": "one"}, **KEY)
        assert retention.sweep(timedelta(days=1)) == 0
        IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))
        assert retention.sweep(timedelta(days=1)) == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once() -> None:
    inside, go_on = threading.Event(), threading.Event()
    done: list[int] = []
    results: list[tuple[Answer, bool]] = []

    def act() -> Answer:
        done.append(1)
        inside.set()
        assert go_on.wait(10)
        return Answer(201, {"made": len(done)})

    def call() -> None:
        try:
            results.append(answers.once(owner="o", key="k", fingerprint="f", act=act))
        finally:
            connection.close()

    first = threading.Thread(target=call)
    first.start()
    assert inside.wait(10)
    second = threading.Thread(target=call)
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(10)
    assert len(done) == 1
    assert sorted(is_repeated for _answer, is_repeated in results) == [False, True]
    assert {answer.body["made"] for answer, _is_repeated in results} == {1}
    with transaction.atomic():
        IdempotencyRecord.objects.all().delete()
