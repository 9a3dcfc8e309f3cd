"""The doctor: asks all machines at once what is there, compares it with the records, and mends what it is told to.

What a job was at work on while the machines were asked is passed over. What machines are found wrong in is looked at
twice: only what is there both times is told. The rows are read in one snapshot, so that books always add up in it.
"""

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import redis
from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import ASKERS, CHECKS, Finding, Look, Report, Wanted
from cloud.common.errors import Problem, Text
from cloud.common.models import Connection
from cloud.common.wire import Document
from cloud.config.services import value
from cloud.events.services import audit
from cloud.infra.messages import Inspect, Inspection
from cloud.infra.models import Agent, DesiredSection
from cloud.infra.services import quarantine
from cloud.jobs import agents
from cloud.jobs.leases import database_now
from cloud.jobs.models import CleanUp, Job, JobResource

ASKED_AT_ONCE = 32
# What has just happened on a machine is on its way to control: the second look comes so much later.
SETTLE_S = 1.5


@dataclass(frozen=True)
class Unseen:
    """A machine, or a part of it, that was not looked at, and why."""

    agent: str
    name: str
    part: str
    reason: Text


@dataclass(frozen=True)
class Diagnosis:
    """What an examination found. `notes` are listed and not out of order; `machines` is how many were looked at."""

    findings: list[Finding]
    notes: list[Finding]
    unseen: list[Unseen]
    machines: int
    checks: int
    took_s: float
    at: datetime


@dataclass(frozen=True)
class Deed:
    """What became of a finding that was to be mended.

    `result` is mended, accepted (a job or a machine is at it: `job`, `wants`), gone (it was out of order no more),
    manual (only a person can) or refused.
    """

    id: str
    result: str
    detail: Text = ""
    job: Job | None = None
    wants: list[Wanted] = field(default_factory=list)


def examine(kinds: Collection[str] | None = None) -> Diagnosis:
    """Look at everything, or at these kinds of findings only. Takes seconds; changes nothing."""
    began, at = time.monotonic(), database_now()
    checks = [name for name in CHECKS if kinds is None or name in kinds]
    first = _Round(checks)
    found = first.findings
    if suspects := [finding for finding in found if finding.agent]:
        threading.Event().wait(SETTLE_S)
        again = _Round(sorted({finding.kind for finding in suspects}), {finding.agent for finding in suspects})
        sure = {finding.id: finding for finding in again.findings}
        found = [sure.get(each.id, each) for each in found if not each.agent or each.id in sure]
    return Diagnosis(
        findings=[finding for finding in found if not CHECKS[finding.kind].is_note],
        notes=[finding for finding in found if CHECKS[finding.kind].is_note],
        unseen=first.unseen,
        machines=len(first.reports),
        checks=len(checks),
        took_s=round(time.monotonic() - began, 2),
        at=at,
    )


def fix(ids: Iterable[str], *, actor: Actor) -> list[Deed]:
    """Mend these findings, each after another look at it; what is mended on machines goes on in a job for each."""
    actor.require("doctor.fix")
    wanted = list(dict.fromkeys(ids))
    kinds = {id.partition(".")[0] for id in wanted} & CHECKS.keys()
    found = {finding.id: finding for finding in examine(kinds).findings} if kinds else {}
    deeds = {id: Deed(id, "gone") for id in wanted}
    on_machines: dict[str, list[Finding]] = {}
    for finding in (found[id] for id in wanted if id in found):
        check = CHECKS[finding.kind]
        if not finding.is_mendable or not (check.fix or check.keeper):
            deeds[finding.id] = Deed(finding.id, "manual", _("Only a person can settle this."))
        elif check.keeper:
            on_machines.setdefault(finding.agent, []).append(finding)
        else:
            deeds[finding.id] = _fix_rows(finding, actor)
    for agent, findings in on_machines.items():
        deeds |= {deed.id: deed for deed in _fix_on_machine(agent, findings, actor)}
    return list(deeds.values())


def _fix_rows(finding: Finding, actor: Actor) -> Deed:
    check = CHECKS[finding.kind]
    assert check.fix is not None
    try:
        with transaction.atomic():
            wants = list(check.fix(finding, actor) or ())
            audit.record("doctor.fix", actor=actor, detail=_told(finding))
    except Problem as problem:
        return Deed(finding.id, "refused", problem.detail)
    return Deed(finding.id, "accepted" if wants else "mended", check.mend, wants=wants)


def _fix_on_machine(agent: str, findings: list[Finding], actor: Actor) -> list[Deed]:
    try:
        job = quarantine.set_aside(agent, findings, actor=actor)
    except Problem as problem:
        return [Deed(finding.id, "refused", problem.detail) for finding in findings]
    return [Deed(finding.id, "accepted", CHECKS[finding.kind].mend, job) for finding in findings]


def _told(finding: Finding) -> Document:
    return {
        "finding": finding.id,
        "resource_type": finding.resource_type,
        "resource": finding.resource_uuid,
        "name": finding.name,
        "machine": finding.host,
    }


class _Round:
    """One look: the machines first, then the rows; of some machines only, when `only` names agents."""

    def __init__(self, kinds: list[str], only: set[str] | None = None) -> None:
        self.unseen: list[Unseen] = []
        asked_at = database_now()
        busy, unsettled = _live_jobs(), _sections()
        self.reports = self._ask(only)
        with _snapshot():
            look = Look(
                asked_at=asked_at,
                reports=self.reports,
                busy=frozenset(busy | _live_jobs(since=asked_at)),
                settling=_settling(unsettled, _sections()),
                patience_s=value("doctor.patience"),
            )
            found = [finding for kind in kinds for finding in CHECKS[kind].look(look)]
        self.findings = [finding for finding in found if only is None or finding.agent in only]

    def _ask(self, only: set[str] | None) -> dict[str, Report]:
        machines = Agent.objects.exclude(hello_at=None).only("pk", "name", "connection")
        rows = list(machines if only is None else machines.filter(pk__in=[UUID(agent) for agent in only]))
        asked: dict[str, dict[str, Document]] = {str(row.pk): {} for row in rows}
        for part, asker in ASKERS.items():
            for agent, document in asker().items():
                if agent in asked:
                    asked[agent][part] = document
        present = []
        for row in rows:
            if row.connection == Connection.CONNECTED:
                present.append(row)
            else:
                self.unseen.append(Unseen(str(row.pk), row.name, "", _("Its agent does not answer.")))
        if not present:
            return {}
        with ThreadPoolExecutor(min(ASKED_AT_ONCE, len(present)), thread_name_prefix="doctor") as pool:
            answers = list(pool.map(lambda row: _answer(row, asked[str(row.pk)]), present))
        reports = {}
        for row, answer in zip(present, answers, strict=True):
            if isinstance(answer, Inspection):
                reports[str(row.pk)] = Report(str(row.pk), row.name, answer.parts)
                self._note_gaps(row, answer, asked[str(row.pk)])
            else:
                self.unseen.append(Unseen(str(row.pk), row.name, "", answer))
        return reports

    def _note_gaps(self, row: Agent, answer: Inspection, asked: dict[str, Document]) -> None:
        for part in asked.keys() - answer.parts.keys():
            failure = answer.failures.get(part)
            reason = failure.detail if failure else _("Its agent does not know this question; upgrade it.")
            self.unseen.append(Unseen(str(row.pk), row.name, part, reason))


def _answer(row: Agent, asked: dict[str, Document]) -> Inspection | Text:
    """What the machine says, or why it says nothing. Runs in a thread of its own, without the database."""
    try:
        return Inspection.from_document(agents.ask(row.pk, Inspect(asked)))
    except Problem as problem:
        return problem.detail
    except redis.RedisError:
        return _("The message store does not answer.")
    except (TypeError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


@contextmanager
def _snapshot() -> Iterator[None]:
    """All rows as of one moment. Inside the caller's own transaction they are as they are there."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _live_jobs(since: datetime | None = None) -> set[str]:
    """Uuids of what live jobs are at work on, or jobs opened since then that may have ended already."""
    jobs = dict(Job.objects.live().values_list("pk", "context"))
    # What ended jobs owe to machines that were away is on its way, too.
    jobs |= dict(Job.objects.filter(pk__in=CleanUp.objects.owed().values("job")).values_list("pk", "context"))
    if since is not None:
        jobs |= dict(Job.objects.filter(created_at__gte=since).values_list("pk", "context"))
    held = JobResource.objects.filter(job__in=list(jobs)).values_list("resource_uuid", flat=True)
    found = {str(uuid) for uuid in held}
    for context in jobs.values():
        listed = (item for value in context.values() if isinstance(value, list) for item in value)
        found |= {item for item in listed if isinstance(item, str)}
    return found


Sections = dict[tuple[str, str], tuple[int, int]]


def _sections() -> Sections:
    rows = DesiredSection.objects.values_list("agent_id", "section", "wanted", "held")
    return {(str(agent), section): (wanted, held) for agent, section, wanted, held in rows}


def _settling(before: Sections, after: Sections) -> frozenset[tuple[str, str]]:
    """Sections that were behind, or changed, at any moment between the two."""
    behind = {key for found in (before, after) for key, (wanted, held) in found.items() if held < wanted}
    return frozenset(behind | {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)})
