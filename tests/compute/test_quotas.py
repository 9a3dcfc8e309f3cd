"""What accounts and projects may have: taken and given once by every act, exact whoever comes at once, and counted from
the rows where nothing is limited."""

import random
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from cloud.accounts.models import Account, Project, QuotaUsage
from cloud.accounts.services import quotas
from cloud.common import quotas as counters
from cloud.common.actor import platform
from cloud.common.driver import Rejected
from cloud.common.errors import Invalid, QuotaExceeded
from cloud.events.models import AuditRecord
from cloud.infra.services import capacity
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from compute.models import Instance
from compute.services import instances
from network.services import l3 as l3_networks
from storage.models import Image, StorageCapacity
from storage.services import books, images
from storage.services.placement import VolumeNeed
from tests.compute.test_concurrency import at_once, codes, made_of
from tests.compute.world import GIB, World
from tests.factories.accounts import AccountFactory, ProjectFactory
from tests.network import factories as networks

ADMIN = platform("test")
EVERYTHING = dict.fromkeys(
    (
        *("instances", "running_instances", "cpu", "memory_bytes", "data_volumes", "volume_bytes"),
        *("images", "image_bytes", "l3_networks", "addresses"),
    ),
    2**50,
)


def limit(owner: Account | Project, **limits: int | None) -> None:
    quotas.change(owner, actor=ADMIN, limits=limits)


def used(owner: Account | Project) -> dict[str, int]:
    """What is used, by name, without what is not."""
    return {row.quota.name: row.used for row in quotas.usage(owner) if row.used}


def expect_exact(*owners: Account | Project) -> None:
    for owner in owners:
        for name, (written, found) in quotas.expected(owner).items():
            assert written == found, (owner, name)
        assert not quotas.recount(owner)


@pytest.fixture
def project(world: World) -> Project:
    return world.image.project


OF_ONE = {
    "instances": 1,
    "running_instances": 1,
    "cpu": 1,
    "memory_bytes": GIB,
    "data_volumes": 1,
    "volume_bytes": 11 * GIB,
    "addresses": 1,
}


class TestThroughALife:
    @pytest.mark.parametrize("is_limited", [True, False])
    def test_of_an_instance(self, world: World, project: Project, is_limited: bool) -> None:
        if is_limited:
            limit(project.account, **EVERYTHING)
            limit(project, **EVERYTHING)
        before = used(project)
        instance = world.create()

        def has() -> dict[str, int]:
            assert used(project) == used(project.account)
            expect_exact(project, project.account)
            return {name: number - before.get(name, 0) for name, number in used(project).items()}

        assert {name: number for name, number in has().items() if number} == OF_ONE
        world.act(instances.stop, instance)
        off = {name: number for name, number in has().items() if number}
        assert off == {name: OF_ONE[name] for name in ("instances", "data_volumes", "volume_bytes", "addresses")}
        world.act(instances.start, instance)
        assert {name: number for name, number in has().items() if number} == OF_ONE
        world.act(instances.destroy, instance)
        assert has()["instances"] == 1
        world.act(instances.expunge, instance)
        assert used(project) == before

    def test_of_what_fails_and_of_what_is_cancelled(self, world: World, project: Project) -> None:
        limit(project, **EVERYTHING)
        before = used(project)
        world.machines.hypervisor(world.host.agent).fail_next("start", Rejected("broken", "It does not start."))
        _made, job = world.begin()
        world.settle()
        assert world.ended(job).state == "failed"
        assert used(project) == before
        _made, job = world.begin()
        jobs.cancel(job, actor=world.admin)
        world.settle()
        assert Job.objects.get(pk=job.pk).state == "cancelled"
        assert used(project) == before
        expect_exact(project, project.account)

    def test_of_images_and_networks(self, world: World, project: Project) -> None:
        limit(project, **EVERYTHING)
        before = used(project)
        made = networks.l3(world.l3.l2, cidr="10.7.0.0/24")
        assert used(project)["l3_networks"] == before.get("l3_networks", 0) + 1
        l3_networks.delete(made, actor=ADMIN)
        Image.objects.filter(pk=world.image.pk).update(state="deleted")
        images.expunge(Image.objects.get(pk=world.image.pk), actor=ADMIN)
        world.settle()
        left = used(project)
        assert left.get("images", 0) == before["images"] - 1
        assert left.get("image_bytes", 0) == before["image_bytes"] - world.image.actual_size_bytes
        expect_exact(project)


class TestRefusal:
    @pytest.mark.parametrize("name", sorted(OF_ONE))
    def test_by_each_name_changes_nothing(self, world: World, project: Project, name: str) -> None:
        before = world.rows()
        limit(project, **{name: OF_ONE[name] - 1})
        with pytest.raises(QuotaExceeded) as caught:
            world.begin()
        problem = caught.value
        assert (problem.status, problem.code) == (409, "quota_exceeded")
        assert problem.extra == {
            "name": name,
            "used": 0,
            "limit": OF_ONE[name] - 1,
            "asked": OF_ONE[name],
            "scope": "project",
        }
        assert str(problem.advice)
        assert world.rows() == before
        limit(project, **{name: OF_ONE[name]})
        world.create()
        expect_exact(project)

    def test_of_the_account_counts_all_its_projects(self, world: World, project: Project) -> None:
        other = ProjectFactory(account=project.account)
        world.create()
        limit(project.account, instances=2)
        with pytest.raises(QuotaExceeded), transaction.atomic():
            quotas.take(other, {"instances": 2})
        with transaction.atomic():
            quotas.take(other, {"instances": 1})
        with pytest.raises(QuotaExceeded) as caught:
            world.begin()
        assert caught.value.extra["scope"] == "account"

    def test_of_a_start(self, world: World, project: Project) -> None:
        instance = world.stopped()
        limit(project, cpu=0)
        before = world.rows()
        with pytest.raises(QuotaExceeded):
            instances.start(instance, actor=world.admin)
        assert world.rows() == before

    def test_a_limit_below_what_is_used_stops_new_work_only(self, world: World, project: Project) -> None:
        instance = world.create()
        limit(project, instances=0, cpu=0)
        with pytest.raises(QuotaExceeded):
            world.begin()
        world.act(instances.stop, instance)
        world.act(instances.destroy, instance)
        world.act(instances.expunge, instance)
        assert "instances" not in used(project)

    def test_what_runs_is_counted_whether_or_not_it_may(self, world: World, project: Project) -> None:
        instance = world.stopped()
        limit(project, cpu=0)
        world.tell_event(instance, "running", "started")
        assert world.fresh(instance).state == "running"
        assert used(project)["cpu"] == 1
        expect_exact(project)


class TestLimits:
    def test_no_limit_no_books(self, world: World) -> None:
        world.create()
        assert not QuotaUsage.objects.exists()

    def test_books_begin_with_what_there_is(self, world: World, project: Project) -> None:
        world.create()
        limit(project, cpu=8, instances=None)
        row = QuotaUsage.objects.get()
        assert (row.name, row.used, row.limit, row.project) == ("cpu", 1, 8, project)
        limit(project, cpu=None)
        assert not QuotaUsage.objects.exists()
        assert AuditRecord.objects.filter(action="quota.change").count() == 2

    def test_names_that_nobody_counts(self, world: World, project: Project) -> None:
        with pytest.raises(Invalid) as caught:
            limit(project, ponies=3)
        assert list(caught.value.errors) == ["limits.ponies"]

    def test_every_name_has_rows_behind_it(self, world: World, project: Project) -> None:
        world.create()
        assert set(EVERYTHING) == set(counters.declared()) == set(used(project))

    def test_wrong_books_are_found_and_set_right(self, world: World, project: Project) -> None:
        limit(project, cpu=8)
        world.create()
        QuotaUsage.objects.update(used=5)
        assert quotas.expected(project) == {"cpu": (5, 1)}
        assert quotas.recount(project)
        assert used(project)["cpu"] == 1
        world.hosts[0].capacity.refresh_from_db()
        assert not capacity.recount(world.host)
        type(world.host.capacity).objects.update(cpu_used=7)
        assert capacity.recount(world.host)
        StorageCapacity.objects.update(used_bytes=1)
        assert books.recount(StorageCapacity.objects.get())
        world.expect_sums()


class TestAtOnce:
    def test_the_last_of_a_quota(self, two_hosts: World) -> None:
        project = two_hosts.image.project
        limit(project.account, instances=5)
        limit(project, cpu=7)
        met = at_once(lambda n: two_hosts.begin(f"vm-{n}", memory_bytes=GIB // 8, root_bytes=GIB, data=[]), 16)
        assert (len(made_of(met)), codes(met)) == (5, {"quota_exceeded"})
        expect_exact(project, project.account)
        two_hosts.expect_sums()

    def test_a_limit_set_while_others_take(self, two_hosts: World) -> None:
        """Whoever comes before it is counted, whoever comes after it is written down."""
        project = two_hosts.image.project

        def act(number: int) -> Any:
            if number % 4 == 0:
                return limit(project if number % 8 else project.account, instances=500 + number, cpu=None, addresses=90)
            return two_hosts.begin(f"vm-{number}", memory_bytes=GIB // 8, root_bytes=GIB, data=[])

        at_once(act, 16)
        assert QuotaUsage.objects.count() == 4
        expect_exact(project, project.account)
        assert used(project)["instances"] == Instance.objects.count()

    def test_everything_that_comes_and_goes(self, two_hosts: World) -> None:
        """Creates, failures, stops and expunges by chance from many sides: every ledger is what the rows add up to."""
        project = two_hosts.image.project
        limit(project.account, **EVERYTHING)
        limit(project, **{**EVERYTHING, "cpu": 9})
        made, _parent = two_hosts.begin("old-{n}", count=6, memory_bytes=GIB // 8, root_bytes=GIB, data=[])
        two_hosts.settle()
        dice = random.Random(7)
        verbs = [dice.choice(["create", "batch", "destroy"]) for _ in range(12)]
        left = list(made)

        def act(number: int) -> Any:
            wish = {"memory_bytes": GIB // 8, "root_bytes": GIB, "data": [VolumeNeed(GIB // 8)]}
            match verbs[number]:
                case "create":
                    return two_hosts.begin(f"new-{number}", **wish)
                case "batch":
                    return two_hosts.begin(f"batch-{number}-{{n}}", count=3, **wish)
                case _:
                    return instances.destroy(made[number % len(left)], actor=two_hosts.admin)

        met = at_once(act, len(verbs))
        assert codes(met) <= {"quota_exceeded", "busy"}
        for job in Job.objects.filter(finished_at=None, workflow="instance.create")[:4]:
            jobs.cancel(job, actor=two_hosts.admin)
        two_hosts.settle()
        for instance in Instance.objects.filter(state="destroyed"):
            instances.expunge(instance, actor=two_hosts.admin)
        two_hosts.settle()
        two_hosts.expect_sums()
        expect_exact(project, project.account)
        for host in two_hosts.hosts:
            assert capacity.expected(host)[0] == capacity.expected(host)[1]
        for row in StorageCapacity.objects.all():
            assert books.expected(row)[0] == books.expected(row)[1]


AMOUNTS = st.dictionaries(st.sampled_from(["instances", "cpu", "addresses"]), st.integers(1, 4), min_size=1)


def fits(model: list[dict[str, int]], at: int, most: int, amounts: dict[str, int]) -> bool:
    """Whether the account, and the first of its projects, may have so much more."""
    own = {"cpu": most // 2, "addresses": most} if at == 0 else {}
    return all(
        (name == "addresses" or sum(each.get(name, 0) for each in model) + number <= most)
        and model[at].get(name, 0) + number <= own.get(name, 10**6)
        for name, number in amounts.items()
    )


class TestBooks(HypothesisTestCase):
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(acts=st.lists(st.tuples(st.booleans(), st.booleans(), AMOUNTS), max_size=20), most=st.integers(0, 12))
    def test_all_or_nothing_and_never_above(self, acts: list[tuple[bool, bool, dict[str, int]]], most: int) -> None:
        """A model of plain sums: what was taken is in the books of both, what was refused in neither."""
        account = AccountFactory()
        projects = [ProjectFactory(account=account), ProjectFactory(account=account)]
        limit(account, instances=most, cpu=most)
        limit(projects[0], cpu=most // 2, addresses=most)
        model: list[dict[str, int]] = [{}, {}]
        for is_first, is_taken, amounts in acts:
            at = 0 if is_first else 1
            if is_taken:
                may = fits(model, at, most, amounts)
                try:
                    with transaction.atomic():
                        quotas.take(projects[at], amounts)
                    assert may
                    for name, number in amounts.items():
                        model[at][name] = model[at].get(name, 0) + number
                except QuotaExceeded:
                    assert not may
            elif all(model[at].get(name, 0) >= number for name, number in amounts.items()):
                quotas.give(projects[at].pk, amounts)
                for name, number in amounts.items():
                    model[at][name] -= number
            written = {(row.account_id is None, row.name): row.used for row in QuotaUsage.objects.all()}
            for name in ("instances", "cpu"):
                assert written[False, name] == sum(each.get(name, 0) for each in model)
            for name in ("cpu", "addresses"):
                assert written[True, name] == model[0].get(name, 0)
