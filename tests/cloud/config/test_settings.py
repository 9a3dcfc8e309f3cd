"""Declared settings: their rules, their values by scope, and their API."""

import uuid
from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cloud.common.actor import Actor
from cloud.common.errors import Invalid, Missing, NotPermitted
from cloud.config import registry, services
from cloud.config.models import Override
from cloud.events.models import AuditRecord
from tests.base.api import Problems
from tests.base.clients import Client


class Thing:
    """Stands in for a resource with overrides."""

    kind = "thing"

    def __init__(self) -> None:
        self.pk = uuid.uuid4()


class Place(Thing):
    kind = "place"


@pytest.fixture
def ratio() -> Iterator[registry.Setting]:
    declared = registry.declare(
        "test.ratio", "ratio", 10, minimum=1, maximum=1000, scopes=("place", "thing"), label="A ratio"
    )
    yield declared
    registry._DECLARED.pop("test.ratio")


class TestRules:
    @pytest.mark.parametrize(
        ("kind", "good", "bad"),
        [
            ("ratio", [1, 1.5], ["1", True, None, float("nan"), float("inf"), [1]]),
            ("integer", [0, -3], [1.5, "1", False, None]),
            ("size_bytes", [0, 2**60], [1.5, "1 GiB"]),
            ("duration_s", [60], [0.5, None]),
            ("boolean", [True, False], [0, 1, "true", None]),
            ("text", ["", "x"], [1, None, "a\x00b", "x" * 4097]),
        ],
    )
    def test_kinds(self, kind: registry.Kind, good: list[object], bad: list[object]) -> None:
        setting = registry.Setting("s", kind, None)
        for value in good:
            assert setting.clean(value) == value
        for value in bad:
            with pytest.raises(Invalid) as refused:
                setting.clean(value)
            assert refused.value.errors["value"]

    def test_bounds_and_choices(self) -> None:
        setting = registry.Setting("s", "integer", 5, minimum=1, maximum=9)
        for value, word in ((0, "or more"), (10, "or less")):
            with pytest.raises(Invalid) as refused:
                setting.clean(value)
            assert word in refused.value.errors["value"][0]
        with pytest.raises(Invalid):
            registry.Setting("s", "text", "a", choices=("a", "b")).clean("c")

    def test_declarations_are_checked(self, ratio: registry.Setting) -> None:
        with pytest.raises(ValueError, match="does not fit"):
            registry.declare("test.other", "integer", 0, minimum=1)
        with pytest.raises(ValueError, match="twice"):
            registry.declare("test.ratio", "ratio", 11)
        with pytest.raises(ValueError, match="no kind"):
            registry.declare("test.other", "colour", "red")  # type: ignore[arg-type]
        assert "test.other" not in registry.declared()


@pytest.mark.django_db
class TestValues:
    def test_the_most_specific_wins(self, ratio: registry.Setting) -> None:
        thing, place = Thing(), Place()
        assert services.value("test.ratio", thing, place) == 10
        for scope, value in ((None, 2.0), (place, 3.0), (thing, 4.0)):
            Override.objects.create(
                name="test.ratio",
                scope_type=scope.kind if scope else "",
                scope_uuid=scope.pk if scope else None,
                value=value,
            )
            services.forget()
            assert services.value("test.ratio", thing, place) == value
        assert services.value("test.ratio", Thing(), place) == 3.0
        assert services.value("test.ratio", Thing(), Place()) == 2.0
        assert services.value("test.ratio") == 2.0

    def test_a_scope_that_is_not_declared_does_not_count(self) -> None:
        registry.declare("test.narrow", "integer", 1, scopes=("place",))
        thing = Thing()
        Override.objects.create(name="test.narrow", scope_type="thing", scope_uuid=thing.pk, value=9)
        assert services.value("test.narrow", thing, None) == 1
        registry._DECLARED.pop("test.narrow")

    def test_remembered_for_a_while(self, ratio: registry.Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        services.value("test.ratio")
        Override.objects.create(name="test.ratio", value=5.0)
        with CaptureQueriesContext(connection) as captured:
            assert services.value("test.ratio") == 10
        assert len(captured) == 0
        now = services.time.monotonic()
        monkeypatch.setattr(services.time, "monotonic", lambda: now + services.CACHE_SECONDS + 0.1)
        assert services.value("test.ratio") == 5.0

    def test_a_change_shows_at_once(self, ratio: registry.Setting, actor: Actor) -> None:
        assert services.value("test.ratio") == 10
        services.change("test.ratio", value=7, actor=actor)
        assert services.value("test.ratio") == 7
        services.reset("test.ratio", actor=actor)
        services.reset("test.ratio", actor=actor)
        assert services.value("test.ratio") == 10
        actions = list(AuditRecord.objects.order_by("created_at").values_list("action", flat=True))
        assert actions == ["setting.change", "setting.reset"]

    def test_refusals(self, ratio: registry.Setting, actor: Actor) -> None:
        with pytest.raises(Missing):
            services.value("no.such")
        with pytest.raises(Missing):
            services.change("no.such", value=1, actor=actor)
        with pytest.raises(Invalid):
            services.change("test.ratio", value=0, actor=actor)
        with pytest.raises(Invalid):
            services.change("test.ratio", value=2, actor=actor, scope_type="nonsense", scope_uuid=uuid.uuid4())
        with pytest.raises(NotPermitted):
            services.change("test.ratio", value=2, actor=Actor(name="nobody"))
        assert not Override.objects.exists()


@pytest.mark.django_db
class TestApi(Problems):
    path = "/api/v1/settings/"

    def test_list_and_change(self, admin: Client, ratio: registry.Setting) -> None:
        shown = {row["name"]: row for row in admin.get(self.path).json()["results"]}
        assert (shown["test.ratio"]["value"], shown["test.ratio"]["source"]) == (10, "default")
        changed = admin.patch(f"{self.path}test.ratio/", {"value": 3}).json()
        assert (changed["value"], changed["source"], changed["default"]) == (3, "global", 10)
        assert admin.delete(f"{self.path}test.ratio/").status_code == 204
        assert admin.get(f"{self.path}test.ratio/").json()["source"] == "default"
        assert [row["name"] for row in admin.get(self.path, {"q": "test.r"}).json()["results"]] == ["test.ratio"]

    def test_two_queries(self, admin: Client, ratio: registry.Setting) -> None:
        for _ in range(5):
            Override.objects.create(name="test.ratio", scope_type="thing", scope_uuid=uuid.uuid4(), value=2)
        admin.get(self.path)
        with CaptureQueriesContext(connection) as captured:
            assert len(admin.get(f"{self.path}test.ratio/").json()["overrides"]) == 5
        assert len(captured) <= 6

    def test_problems(self, admin: Client, tenant: Client, anonymous: Client, ratio: registry.Setting) -> None:
        self.assert_problem(admin.get(f"{self.path}no.such/"), 404, "unknown_setting")
        self.assert_problem(admin.patch(f"{self.path}test.ratio/", {"value": "x"}), 400, "invalid_setting")
        self.assert_problem(admin.patch(f"{self.path}test.ratio/", {"value": None}), 400)
        self.assert_problem(admin.patch(f"{self.path}test.ratio/", {}), 400, "invalid")
        self.assert_problem(admin.patch(f"{self.path}test.ratio/", {"value": 2, "x": 1}), 400, "unknown_field")
        self.assert_problem(admin.get(self.path, {"x": 1}), 400, "unknown_parameter")
        self.assert_problem(tenant.get(self.path), 403, "not_permitted")
        self.assert_problem(tenant.patch(f"{self.path}test.ratio/", {"value": 2}), 403, "not_permitted")
        self.assert_problem(anonymous.get(self.path), 401, "not_signed_in")
        body = {"scope_type": "thing", "scope_uuid": str(uuid.uuid4()), "value": 2}
        self.assert_problem(admin.post(f"{self.path}test.ratio/override/", body), 400, "invalid_scope")

    def test_a_refused_act_is_on_record(self, tenant: Client, ratio: registry.Setting) -> None:
        tenant.patch(f"{self.path}test.ratio/", {"value": 2})
        record = AuditRecord.objects.get(action="setting.change")
        assert (record.result, record.actor_name) == ("refused", tenant.user.username)

    def test_one_resource(self, admin: Client, tenant: Client) -> None:
        from cloud.infra.models import Cluster
        from tests.factories.infra import ClusterFactory

        cluster: Cluster = ClusterFactory()
        path = f"{self.path}host.reserved_memory/"
        scope = {"scope_type": "cluster", "scope_uuid": str(cluster.pk)}
        shown = admin.post(f"{path}override/", {**scope, "value": 0}).json()
        assert shown["overrides"][0] | {"updated_at": ""} == {**scope, "value": 0, "updated_at": ""}
        assert services.value("host.reserved_memory", cluster) == 0
        assert services.value("host.reserved_memory") == 1024**3
        assert AuditRecord.objects.get(action="setting.change").resource_uuid == cluster.pk
        absent = {**scope, "scope_uuid": str(uuid.uuid4()), "value": 0}
        self.assert_problem(admin.post(f"{path}override/", absent), 404, "not_found")
        self.assert_problem(tenant.post(f"{path}override/", {**scope, "value": 0}), 403, "not_permitted")
        admin.post(f"{path}reset-override/", scope)
        assert services.value("host.reserved_memory", cluster) == 1024**3
