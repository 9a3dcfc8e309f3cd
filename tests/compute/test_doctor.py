"""The doctor finds what was planted, mends it without loss, and tells nothing of a healthy cloud at work."""

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cloud.common.actor import Actor
from cloud.common.doctor import CHECKS
from cloud.events.models import AuditRecord
from cloud.infra.models import QuarantinedThing
from cloud.infra.services import doctor, quarantine
from cloud.infra.services.doctor import Deed, Diagnosis
from cloud.jobs import doctor as job_checks
from compute.models import Instance, UnknownDomain
from compute.services import instances
from network.models import AddressPurpose, IpAddress, Nic
from storage.drivers.fake import WORLDS
from storage.models import Volume
from tests.base.clients import admin_client
from tests.cloud.jobs.conftest import Line
from tests.compute.plants import PLANTS
from tests.compute.world import World

# Only a person can settle these; the doctor lists them.
FOR_A_PERSON = {"volume_size", "job_stuck", "agent_silent", "unknown_domain"}
MENDED = sorted(PLANTS.keys() - FOR_A_PERSON)
KEPT = sorted(kind for kind in MENDED if CHECKS[kind].keeper and CHECKS[kind].is_kept)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, line: Line) -> None:
    monkeypatch.setattr(doctor, "SETTLE_S", 0.0)
    monkeypatch.setattr(job_checks, "kick", lambda job, queue="control": line.kicks.append((job, queue)))


def kinds(found: Diagnosis) -> set[str]:
    return {finding.kind for finding in found.findings}


def fix(world: World, found: Diagnosis) -> list[Deed]:
    deeds = doctor.fix([finding.id for finding in found.findings], actor=world.admin)
    world.settle()
    return deeds


def test_every_kind_has_a_plant() -> None:
    assert PLANTS.keys() == CHECKS.keys()


def test_what_is_mended_says_how() -> None:
    for kind, check in CHECKS.items():
        assert bool(check.mend) == bool(check.fix or check.keeper), kind
        assert not (check.fix and check.keeper), kind


@pytest.mark.parametrize("kind", MENDED)
def test_a_plant_is_found_and_mended(world: World, kind: str) -> None:
    assert doctor.examine().findings == []
    PLANTS[kind](world)
    found = doctor.examine()
    assert kind in kinds(found)
    deeds = fix(world, found)
    assert {deed.result for deed in deeds} <= {"mended", "accepted"}, deeds
    again = doctor.examine()
    assert again.findings == [], again.findings
    assert again.unseen == []
    acts = set(AuditRecord.objects.filter(action="doctor.fix").values_list("result", flat=True))
    assert acts == {"succeeded"}


@pytest.mark.parametrize("kind", sorted(FOR_A_PERSON))
def test_what_is_for_a_person_is_listed_and_left(world: World, kind: str) -> None:
    PLANTS[kind](world)
    found = doctor.examine()
    if CHECKS[kind].is_note:
        assert [each.kind for each in found.notes] == [kind]
        assert found.findings == []
        return
    assert kinds(found) == {kind}
    assert {deed.result for deed in fix(world, found)} == {"manual"}
    assert kinds(doctor.examine()) == {kind}


@pytest.mark.parametrize("kind", KEPT)
def test_what_was_taken_away_can_be_put_back(world: World, kind: str) -> None:
    PLANTS[kind](world)
    before, rows = world.on_machines(), world.rows()
    if kind.startswith("domain"):
        before.pop("domains")  # they come back switched off
    found = doctor.examine()
    fix(world, found)
    kept = QuarantinedThing.objects.filter(kind=kind)
    assert kept.exists()
    quarantine.restore([thing.pk for thing in kept], actor=world.admin)
    world.settle()
    after = world.on_machines()
    assert {name: after[name] for name in before} == before
    assert world.rows() == rows
    assert not QuarantinedThing.objects.exists()
    assert kind in kinds(doctor.examine())


@pytest.mark.parametrize("kind", ["address_leak", "nic_orphan"])
def test_an_address_stays_reserved_until_the_quarantine_ends(world: World, kind: str) -> None:
    PLANTS[kind](world)
    rows = set(IpAddress.objects.values_list("address", "purpose", "holder"))
    fix(world, doctor.examine())
    kept = IpAddress.objects.get(name="quarantine")
    assert (kept.purpose, kept.holder) == (AddressPurpose.RESERVED, None)
    things = list(QuarantinedThing.objects.values_list("pk", flat=True))
    quarantine.restore(things, actor=world.admin)
    assert set(IpAddress.objects.values_list("address", "purpose", "holder")) == rows

    fix(world, doctor.examine())
    quarantine.purge(QuarantinedThing.objects.values_list("pk", flat=True), actor=world.admin)
    assert not IpAddress.objects.filter(pk=kept.pk).exists()


def test_the_quarantine_ends_by_itself(world: World) -> None:
    PLANTS["volume_leak"](world)
    PLANTS["address_leak"](world)
    fix(world, doctor.examine())
    assert QuarantinedThing.objects.count() == 2
    quarantine.purge_due()
    world.settle()
    assert QuarantinedThing.objects.count() == 2
    QuarantinedThing.objects.update(created_at="2001-01-01T00:00:00Z")
    quarantine.purge_due()
    world.settle()
    assert not QuarantinedThing.objects.exists()
    assert not WORLDS[world.storage.path].aside
    assert doctor.examine().findings == []


def test_a_mend_looks_again_before_it_acts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row appears between the finding and the deed."""
    PLANTS["domain_leak"](world)
    found = doctor.examine()
    instance = world.create("known")
    leaked = found.findings[0].resource_uuid
    doctor.fix([found.findings[0].id], actor=world.admin)
    Instance.objects.filter(pk=instance.pk).update(name="known")
    monkeypatch.setattr("compute.doctor.Instance.objects", Instance.objects)
    Instance.objects.create(
        **{
            **{
                field.attname: getattr(instance, field.attname)
                for field in Instance._meta.concrete_fields
                if field.attname not in ("uuid", "created_at", "is_reserved")
            },
            "uuid": leaked,
        }
    )
    world.settle()
    assert leaked in {domain.uuid for domain in world.machines.hypervisor(world.host.agent).inventory()}
    assert not QuarantinedThing.objects.exists()


def test_a_finding_that_is_no_more_is_left_alone(world: World) -> None:
    assert [deed.result for deed in doctor.fix(["volume_leak.0123", "no such"], actor=world.admin)] == ["gone", "gone"]


def test_no_false_alarm_at_any_moment_of_an_instances_life(world: World) -> None:
    """The cloud is looked at after each message of each job."""
    looks = 0

    def step() -> None:
        nonlocal looks
        while world.line.kicks or world.line.commands or world.line.others:
            if world.line.kicks:
                from cloud.jobs import engine

                engine.advance(*world.line.kicks.pop(0))
            elif world.line.commands:
                world.line.deliver(*world.line.commands.pop(0))
            else:
                world.line.others.pop(0)()
            found = doctor.examine()
            assert found.findings == [], found.findings
            looks += 1

    (instance, *_more), _job = world.begin("one")
    assert doctor.examine().findings == []
    step()
    for verb in (instances.stop, instances.start, instances.reboot, instances.destroy, instances.expunge):
        verb(world.fresh(instance), actor=world.admin)
        assert doctor.examine().findings == [], verb
        step()
    assert looks > 20
    assert not Volume.objects.exists()
    assert not Nic.objects.exists()


def test_what_happens_while_it_looks_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance is made and another expunged between the machines' answers and the look at the rows."""
    gone = world.destroyed("gone")
    ask = world.machines.ask
    done = []

    def slowly(agent: Any, message: Any, timeout: float = 5.0) -> Any:
        answer = ask(agent, message, timeout)
        return answer

    snapshot = doctor._snapshot

    def later() -> Any:
        if not done:
            done.append(True)
            world.create("new")
            world.act(instances.expunge, gone)
        return snapshot()

    monkeypatch.setattr("cloud.jobs.agents.ask", slowly)
    monkeypatch.setattr(doctor, "_snapshot", later)
    found = doctor.examine()
    assert done
    assert found.findings == [], found.findings


def test_a_silent_machine_is_told_and_hides_nothing_else(world: World) -> None:
    PLANTS["image_leak"](world)
    world.machines.away.add(str(world.host.agent_id))
    found = doctor.examine()
    assert [each.name for each in found.unseen] == [world.host.name]
    assert kinds(found) == {"image_leak"}


def test_an_older_agent_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloud.agent.registry import INSPECTORS

    monkeypatch.delitem(INSPECTORS, "network")
    assert {(each.name, each.part) for each in doctor.examine().unseen} == {(world.host.name, "network")}


def test_who_may(world: World) -> None:
    nobody = Actor(name="nobody")
    with pytest.raises(Exception, match="lacks the permission"):
        doctor.fix(["x"], actor=nobody)


def test_a_fixed_number_of_queries(world: World) -> None:
    world.create("one")
    doctor.examine()
    with CaptureQueriesContext(connection) as one:
        doctor.examine()
    for number in range(3):
        world.create(f"more-{number}", cpu=1, memory_bytes=1024**2)
    with CaptureQueriesContext(connection) as more:
        doctor.examine()
    # The values of settings are remembered for seconds: one look may read what the other knew.
    assert abs(len(more) - len(one)) <= 1
    assert len(one) <= 140


class TestApi:
    def test_found_mended_and_put_back(self, world: World) -> None:
        admin = admin_client()
        assert admin.get("/api/v1/doctor/").json()["count"] == 0
        PLANTS["stranger_leak"](world)
        found = admin.get("/api/v1/doctor/").json()
        (finding,) = found["results"]
        assert (finding["kind"], finding["nature"], finding["host"]) == ("stranger_leak", "leak", world.host.name)
        answer = admin.post("/api/v1/doctor/fix/", {"ids": [finding["id"]]})
        assert answer.status_code == 202
        (deed,) = answer.json()["results"]
        assert deed["result"] == "accepted"
        world.settle()
        assert admin.get(deed["job"]).json()["state"] == "succeeded"
        after = admin.get("/api/v1/doctor/").json()
        assert after["count"] == 0
        (thing,) = after["quarantine"]
        answer = admin.post("/api/v1/doctor/restore/", {"ids": [thing["uuid"]]})
        assert answer.status_code == 202
        world.settle()
        assert admin.get("/api/v1/doctor/?kind=stranger_leak").json()["count"] == 1
        assert admin.post("/api/v1/doctor/purge/", {"ids": [thing["uuid"]]}).status_code == 404

    def test_tenants_may_not(self, tenant: Any) -> None:
        assert tenant.get("/api/v1/doctor/").status_code == 403
        assert tenant.post("/api/v1/doctor/fix/", {"ids": ["x"]}).status_code == 403


class TestUnknownDomains:
    def test_listed_at_once_and_gone_when_they_are(self, world: World) -> None:
        uuid = "0c9a7a3e-7e0e-4d0c-9c8f-0123456789ab"
        hypervisor = world.machines.hypervisor(world.host.agent)
        hypervisor.add_foreign(uuid, "stranger")
        world.tell_event(uuid, "running", "booted", is_ours=False)
        (row,) = UnknownDomain.objects.all()
        assert (str(row.domain_uuid), row.name, row.state, row.host) == (uuid, "stranger", "running", world.host)
        world.tell_inventory()
        assert UnknownDomain.objects.get().pk == row.pk
        body = admin_client().get(f"/api/v1/unknown-domains/?host={world.host.pk}").json()
        assert [each["domain_uuid"] for each in body["results"]] == [uuid]
        del hypervisor._domains[uuid]
        world.tell_inventory()
        assert not UnknownDomain.objects.exists()

    def test_a_domain_of_ours_without_its_instance_is_listed_too(self, world: World) -> None:
        PLANTS["domain_leak"](world)
        world.create("known")
        world.tell_inventory()
        assert [(row.name, row.is_ours) for row in UnknownDomain.objects.all()] == [("forgotten", True)]

    def test_nothing_is_written_while_nothing_changes(self, world: World) -> None:
        PLANTS["unknown_domain"](world)
        world.tell_inventory()
        with CaptureQueriesContext(connection) as queries:
            world.tell_inventory()
        assert not [each for each in queries if "unknowndomain" in each["sql"] and not each["sql"].startswith("SELECT")]


class TestCommand:
    """What `./mica doctor` runs."""

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as ended:
            call_command("doctor", *words)
        return ended.value.code, capsys.readouterr().out

    def test_all_is_well(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        code, said = self.run(capsys)
        assert code == 0
        assert said.startswith("All is well. (")

    def test_a_line_for_each_finding_and_mended(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        PLANTS["host_books"](world)
        PLANTS["address_leak"](world)
        code, said = self.run(capsys)
        lines = said.splitlines()
        assert code == 1
        assert [line.split()[:2] for line in lines[:-1]] == [["drift", "host_books"], ["leak", "address_leak"]]
        assert lines[-1].startswith("2 findings.")
        code, said = self.run(capsys, "--fix", "--json")
        document = json.loads(said)
        assert (code, document["results"]) == (0, [])
        assert {deed["result"] for deed in document["fixed"]} == {"mended"}

    def test_a_silent_machine_is_not_well(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.machines.away.add(str(world.host.agent_id))
        code, said = self.run(capsys)
        assert code == 1
        assert said.splitlines()[-1].startswith("Not all was looked at.")
