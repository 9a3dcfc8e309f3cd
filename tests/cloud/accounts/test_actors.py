"""From a user or a token to what may be done where."""

import uuid

import pytest

from cloud.accounts.models import Membership
from cloud.accounts.roles import ROLES
from cloud.accounts.services import actors
from cloud.common.errors import Missing
from tests.base.clients import Client
from tests.factories.accounts import ProjectFactory, UserFactory, member, token_of

pytestmark = pytest.mark.django_db


def test_the_widest_role_is_worn() -> None:
    user = member("monitor_only")
    second = ProjectFactory(account=user.account)
    Membership.objects.create(user=user, project=second, role="project_member")
    actor = actors.of(user)
    assert actor.project == second.pk
    assert actor.grants == ROLES["project_member"].grants


def test_no_grant_reaches_a_project_it_was_not_given_for() -> None:
    user = member("project_member")
    watched = ProjectFactory(account=user.account)
    Membership.objects.create(user=user, project=watched, role="monitor_only")
    assert watched.pk not in actors.of(user).projects
    narrow = actors.of(user, project=watched)
    assert narrow.projects == {watched.pk}
    assert not narrow.may("instance.start")
    assert narrow.may("instance.view")


def test_a_project_that_is_not_ones_own_is_absent() -> None:
    user = member("project_member")
    for project in (ProjectFactory(), ProjectFactory(account=user.account), uuid.uuid4(), "nonsense"):
        with pytest.raises(Missing):
            actors.of(user, project=project)


def test_account_administrators_work_in_all_of_the_account_and_nowhere_else() -> None:
    user = member("account_admin")
    second = ProjectFactory(account=user.account)
    assert actors.of(user, project=second).project == second.pk
    assert second.pk in actors.of(user).projects
    assert not actors.of(user).sees_all
    with pytest.raises(Missing):
        actors.of(user, project=ProjectFactory())


def test_platform_administrators_work_everywhere() -> None:
    user = member("platform_admin")
    other = ProjectFactory()
    actor = actors.of(user, project=other.pk)
    assert (actor.project, actor.sees_all) == (other.pk, True)
    with pytest.raises(Missing):
        actors.of(user, project=uuid.uuid4())


def test_without_a_role_nothing_is_seen_or_done() -> None:
    actor = actors.of(UserFactory())
    assert (actor.project, actor.projects, actor.grants, actor.sees_all) == (None, frozenset(), frozenset(), False)


def test_scopes_narrow_exactly() -> None:
    client = Client(member("account_admin"), scopes=["*.view", "user.create"])
    me = client.get("/api/v1/me/").json()
    assert "user.create" in me["permissions"]
    assert "project.view" in me["permissions"]
    assert "user.delete" not in me["permissions"]
    assert "setting.view" not in me["permissions"]


def test_a_token_bound_to_a_project_sees_only_it() -> None:
    user = member("platform_admin")
    bound = ProjectFactory()
    client = Client(user, project=bound)
    me = client.get("/api/v1/me/").json()
    assert [project["uuid"] for project in me["projects"]] == [str(bound.pk)]
    assert me["sees_all"] is False
    assert "setting.change" not in me["permissions"]
    assert client.get("/api/v1/me/", headers={"X-Mica-Project": str(ProjectFactory().pk)}).status_code == 404


def test_project_header() -> None:
    user = member("account_admin")
    second = ProjectFactory(account=user.account)
    client = Client(user)
    assert client.get("/api/v1/me/", headers={"X-Mica-Project": str(second.pk)}).json()["project"]["uuid"] == str(
        second.pk
    )
    assert client.get("/api/v1/me/", headers={"X-Mica-Project": "nonsense"}).status_code == 404


def test_the_actor_knows_where_from(admin: Client) -> None:
    from cloud.events.models import AuditRecord

    admin.post("/api/v1/projects/", {"name": "p"}, headers={"X-Request-Id": "r-1"}, REMOTE_ADDR="192.0.2.7")
    record = AuditRecord.objects.get(action="project.create")
    assert (record.address, record.request_id, record.via) == ("192.0.2.7", "r-1", "token")


def test_the_secret_of_a_token_is_not_its_hash() -> None:
    user = member()
    secret = token_of(user)
    assert secret.startswith("mica_")
    assert user.tokens.get().hash not in secret
