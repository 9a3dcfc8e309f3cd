"""Acts on accounts: nobody locks themselves out, nobody climbs, secrets are shown once."""

import threading
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from cloud.accounts.models import Account, ApiToken, Membership, Project, SignInLink, User
from cloud.accounts.roles import PLATFORM_ADMIN
from cloud.accounts.services import accounts, actors, bootstrap, links, projects, tokens, users
from cloud.common.actor import Actor, platform
from cloud.common.errors import Conflict, Invalid, NotPermitted
from cloud.events.models import AuditRecord
from tests.factories.accounts import AccountFactory, ProjectFactory, UserFactory, member

pytestmark = pytest.mark.django_db


class TestBootstrap:
    def test_is_safe_to_repeat(self) -> None:
        first = bootstrap.ensure_admin()
        assert bootstrap.ensure_admin() == first
        assert Account.objects.get().name == Project.objects.get().name == "admin"
        assert actors.of(first).sees_all
        assert not first.has_usable_password()

    def test_leaves_changes_alone(self) -> None:
        user = bootstrap.ensure_admin()
        user.memberships.all().delete()
        assert not bootstrap.ensure_admin().memberships.exists()


class TestLockOut:
    def test_nobody_removes_themselves(self) -> None:
        user = bootstrap.ensure_admin()
        member(PLATFORM_ADMIN)
        me = actors.of(user)
        for act in (
            lambda: users.delete(user, actor=me),
            lambda: users.update(user, actor=me, is_active=False),
            lambda: users.revoke(user, actor=me, project=bootstrap.admin_project()),
            lambda: users.grant(user, actor=me, project=bootstrap.admin_project(), role="auditor"),
        ):
            with pytest.raises(Conflict) as refused:
                act()
            assert refused.value.code == "self_lock_out"

    def test_the_last_administrator_stays(self, actor: Actor) -> None:
        user = bootstrap.ensure_admin()
        with pytest.raises(Conflict) as refused:
            users.delete(user, actor=actor)
        assert refused.value.code == "last_administrator"
        other = member(PLATFORM_ADMIN)
        users.delete(user, actor=actor)
        with pytest.raises(Conflict):
            users.update(other, actor=actor, is_active=False)

    def test_accounts_that_stay(self, actor: Actor) -> None:
        user = bootstrap.ensure_admin()
        with pytest.raises(Conflict):
            accounts.delete(user.account, actor=actor)
        with pytest.raises(Conflict):
            accounts.update(user.account, actor=actor, name="other")
        admin = member(PLATFORM_ADMIN)
        with pytest.raises(Conflict):
            accounts.delete(admin.account, actor=actors.of(admin))
        with pytest.raises(Conflict):
            projects.delete(bootstrap.admin_project(), actor=actor)

    def test_a_role_is_changed_where_another_administrator_is_left(self, actor: Actor) -> None:
        bootstrap.ensure_admin()
        second = member(PLATFORM_ADMIN)
        users.grant(second, actor=actor, project=second.memberships.get().project, role="auditor")
        assert second.memberships.get().role == "auditor"


class TestRanks:
    def test_an_account_administrator_cannot_make_a_platform_administrator(self) -> None:
        user = member("account_admin")
        other = UserFactory(account=user.account)
        for role in ("platform_admin", "auditor"):
            with pytest.raises(NotPermitted) as refused:
                users.grant(other, actor=actors.of(user), project=user.memberships.get().project, role=role)
            assert refused.value.code == "role_too_wide"
        users.grant(other, actor=actors.of(user), project=user.memberships.get().project, role="project_member")

    def test_nor_take_one_over(self) -> None:
        admin = bootstrap.ensure_admin()
        climber = member("account_admin", bootstrap.admin_project())
        me = actors.of(climber)
        for act in (
            lambda: users.update(admin, actor=me, password="correct horse battery"),
            lambda: users.delete(admin, actor=me),
            lambda: tokens.create(actor=me, name="t", user=admin),
            lambda: users.grant(admin, actor=me, project=bootstrap.admin_project(), role="monitor_only"),
        ):
            with pytest.raises(NotPermitted) as refused:
                act()
            assert refused.value.code == "user_too_mighty"

    def test_a_role_stays_in_its_account(self, actor: Actor) -> None:
        user, foreign = member("account_admin"), ProjectFactory()
        with pytest.raises(Invalid):
            users.grant(user, actor=actor, project=foreign, role="account_admin")
        users.grant(user, actor=actor, project=foreign, role="monitor_only")

    def test_a_narrow_token_makes_no_wider_one(self) -> None:
        user = member("account_admin")
        narrow = ApiToken(user=user, scopes=["api_token.*", "instance.view"])
        me = actors.of(user, token=narrow, via="token")
        made, _secret = tokens.create(actor=me, name="t")
        assert set(made.scopes) >= {"api_token.create"}
        assert not actors.of(user, token=made).may("user.create")
        with pytest.raises(NotPermitted):
            users.create(actor=me, username="x")


class TestUsers:
    def test_names_are_taken_once(self, actor: Actor) -> None:
        account = ProjectFactory().account
        users.create(actor=actor, username="ann", account=account)
        with pytest.raises(Conflict) as refused:
            users.create(actor=actor, username="ann", account=account)
        assert refused.value.code == "name_taken"
        assert AuditRecord.objects.filter(action="user.create").count() == 1

    def test_passwords(self, actor: Actor) -> None:
        account = ProjectFactory().account
        user = users.create(actor=actor, username="ann", account=account, password="correct horse battery")
        assert user.password.startswith("argon2")
        assert user.check_password("correct horse battery")
        users.update(user, actor=actor, password="")
        assert not User.objects.get().has_usable_password()

    def test_a_deleted_users_acts_stay_on_record(self, actor: Actor) -> None:
        user = member("account_admin")
        projects.create(actor=actors.of(user), name="p")
        users.delete(user, actor=actor)
        record = AuditRecord.objects.get(action="project.create")
        assert (record.actor_uuid, record.actor_name) == (user.pk or record.actor_uuid, user.username)


class TestTokens:
    def test_shown_once(self) -> None:
        user = member()
        token, secret = tokens.create(actor=actors.of(user), name="t")
        assert secret not in str(token.__dict__)
        assert tokens.recognise(secret) == token

    def test_refused_when_expired_revoked_or_inactive(self) -> None:
        user = member()
        token, secret = tokens.create(actor=actors.of(user), name="t", expires_at=timezone.now() + timedelta(days=1))
        ApiToken.objects.update(expires_at=timezone.now())
        assert tokens.recognise(secret) is None
        ApiToken.objects.update(expires_at=None)
        assert tokens.recognise(secret) is not None
        User.objects.update(is_active=False)
        assert tokens.recognise(secret) is None
        User.objects.update(is_active=True)
        tokens.delete(token, actor=actors.of(user))
        assert tokens.recognise(secret) is None

    def test_use_is_noted_once_a_minute(self, django_assert_num_queries) -> None:
        _token, secret = tokens.create(actor=actors.of(member()), name="t")
        with django_assert_num_queries(2):
            tokens.recognise(secret)
        first = ApiToken.objects.get().last_used_at
        with django_assert_num_queries(1):
            tokens.recognise(secret)
        ApiToken.objects.update(last_used_at=first - timedelta(seconds=61))
        tokens.recognise(secret)
        assert ApiToken.objects.get().last_used_at >= first

    def test_what_makes_no_sense(self) -> None:
        with pytest.raises(Invalid) as refused:
            tokens.create(
                actor=actors.of(member()),
                name="t",
                scopes=["nonsense.fly"],
                expires_at=timezone.now() - timedelta(days=1),
            )
        assert set(refused.value.errors) == {"scopes", "expires_at"}


class TestLinks:
    def test_works_once(self) -> None:
        user = bootstrap.ensure_admin()
        secret = links.create(user, actor=platform())
        assert links.consume(secret) == user
        assert links.consume(secret) is None

    def test_expires(self) -> None:
        secret = links.create(bootstrap.ensure_admin(), actor=platform())
        SignInLink.objects.update(expires_at=timezone.now())
        assert links.consume(secret) is None
        assert links.consume("made-up") is None

    def test_not_for_the_inactive(self) -> None:
        user = UserFactory(is_active=False)
        with pytest.raises(Conflict):
            links.create(user, actor=platform())

    def test_account_administrators_make_none(self) -> None:
        user = member("account_admin")
        with pytest.raises(NotPermitted):
            links.create(user, actor=actors.of(user))


class TestCommands:
    def test_token(self) -> None:
        out = StringIO()
        call_command("token", "admin", stdout=out)
        found = tokens.recognise(out.getvalue().strip())
        assert found is not None
        assert found.user.username == "admin"

    def test_signin_link(self, settings) -> None:
        settings.BASE_URL = "http://localhost:8123/"
        out = StringIO()
        call_command("signin_link", "admin", stdout=out)
        assert out.getvalue().startswith("http://localhost:8123/signin/link_")

    def test_unknown_user(self) -> None:
        for command in ("token", "signin_link"):
            with pytest.raises(CommandError, match="no user nobody"):
                call_command(command, "nobody")


class TestDeletion:
    def test_an_account_goes_with_all_it_has(self, actor: Actor) -> None:
        user = member("account_admin")
        accounts.delete(user.account, actor=actor)
        assert not User.objects.filter(pk=user.pk).exists()
        assert AuditRecord.objects.get(action="account.delete").resource_name == user.account.name

    def test_foreign_users_are_out_of_reach(self) -> None:
        user = member("account_admin")
        with pytest.raises(NotPermitted):
            accounts.create(actor=actors.of(user), name=AccountFactory.build().name)


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_remove_each_other() -> None:
    one, two = bootstrap.ensure_admin(), member(PLATFORM_ADMIN)
    both = threading.Barrier(2, timeout=10)
    ends: list[str] = []

    def remove(whom: User, actor: Actor) -> None:
        both.wait()
        try:
            users.delete(whom, actor=actor)
            ends.append("deleted")
        except Conflict as refused:
            ends.append(refused.code)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=remove, args=(two, actors.of(one))),
        threading.Thread(target=remove, args=(one, actors.of(two))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(ends) == ["deleted", "last_administrator"]
    assert Membership.objects.filter(role=PLATFORM_ADMIN).count() == 1
