"""What the doctor looks for in infrastructure: silent agents, sections that are behind, a quarantine that is not as it
is written down."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import LISTERS, Finding, Kept, Look, Report, Wanted, check
from cloud.common.models import Connection
from cloud.common.text import filled
from cloud.infra import quarantined
from cloud.infra.models import Agent, DesiredSection, QuarantinedThing
from cloud.infra.services import desired


@check("agent_silent", "missing", label=_("A machine whose agent does not answer"))
def silent(look: Look) -> Iterator[Finding]:
    for agent in Agent.objects.exclude(hello_at=None).filter(connection=Connection.DISCONNECTED):
        yield Finding(
            "agent_silent",
            "agent",
            str(agent.pk),
            agent.name,
            _("Nobody knows what is on this machine until its agent answers again."),
            host=agent.name,
            since=agent.connection_changed_at,
        )


def _converge_again(finding: Finding, actor: Actor) -> list[Wanted]:
    agent = Agent.objects.filter(pk=finding.thing["agent"]).first()
    return desired.touch(agent, finding.thing["section"]) if agent else []


def _section(kind: str, row: DesiredSection, detail: Any) -> Finding:
    return Finding(
        kind,
        "agent",
        str(row.agent_id),
        f"{row.agent.name}: {row.section}",
        detail,
        host=row.agent.name,
        since=row.behind_since if row.held < row.wanted else None,
        thing={"agent": str(row.agent_id), "section": row.section},
    )


@check(
    "section_behind",
    "drift",
    label=_("A machine that is behind what it should have"),
    mend=_("have the machine converge again"),
    fix=_converge_again,
)
def behind(look: Look) -> Iterator[Finding]:
    rows = DesiredSection.objects.behind().filter(agent__connection=Connection.CONNECTED).select_related("agent")
    late = look.asked_at - timedelta(seconds=look.patience_s)
    for row in rows.filter(Q(behind_since__lt=late) | Q(failure__isnull=False)):
        if (row.failure or {}).get("nature") == "transient" and row.behind_since and row.behind_since > late:
            continue  # it is tried again
        yield _section(
            "section_behind",
            row,
            filled(
                _("It holds %(held)d of %(wanted)d. %(failure)s"),
                held=row.held,
                wanted=row.wanted,
                failure=(row.failure or {}).get("detail", ""),
            ),
        )


@check(
    "section_failing",
    "drift",
    label=_("A part of what a machine should have fails there"),
    mend=_("have the machine converge again"),
    fix=_converge_again,
)
def failing(look: Look) -> Iterator[Finding]:
    rows = DesiredSection.objects.exclude(failures={}).filter(held=F("wanted"), agent__connection=Connection.CONNECTED)
    for row in rows.select_related("agent"):
        yield _section("section_failing", row, "; ".join(each["detail"] for each in row.failures.values()))


def _kept(look: Look) -> Iterator[tuple[Report, Kept]]:
    for part, lister in LISTERS.items():
        for report, document in look.parts(part):
            for kept in lister(document):
                yield report, kept


def _write_down(finding: Finding, actor: Actor) -> None:
    if not QuarantinedThing.objects.filter(pk=finding.resource_uuid).exists():
        quarantined.keep(
            finding.resource_uuid,
            Finding(
                finding.kind,
                finding.thing["resource_type"],
                finding.thing["resource_uuid"],
                finding.name,
                "",
                agent=finding.agent,
                thing=finding.thing["thing"],
            ),
            [],
            keeper=finding.thing["keeper"],
        )


@check(
    "quarantine_unlisted",
    "drift",
    label=_("A thing in a machine's quarantine that is not written down"),
    mend=_("write it down, so that it can be put back or purged"),
    fix=_write_down,
)
def unlisted(look: Look) -> Iterator[Finding]:
    """A job that moved it and did not come to write it down."""
    known = {str(key) for key in QuarantinedThing.objects.values_list("pk", flat=True)}
    for report, kept in _kept(look):
        if kept.id not in known and not look.is_busy(report.agent):
            yield Finding(
                "quarantine_unlisted",
                "quarantine",
                kept.id,
                kept.name,
                _("The machine has it in quarantine, and nobody knows of it."),
                agent=report.agent,
                host=report.name,
                since=datetime.fromtimestamp(kept.at, UTC),
                thing={
                    "keeper": kept.keeper,
                    "thing": kept.thing,
                    "resource_type": kept.resource_type,
                    "resource_uuid": kept.name,
                },
            )


def _forget_lost(finding: Finding, actor: Actor) -> None:
    """Rows that went with it stay in quarantine by themselves."""
    QuarantinedThing.objects.filter(pk=finding.resource_uuid, rows=[]).delete()
    QuarantinedThing.objects.filter(pk=finding.resource_uuid).update(keeper="")


@check(
    "quarantine_lost",
    "missing",
    label=_("A thing that is not in its machine's quarantine any more"),
    mend=_("strike it off the quarantine's list"),
    fix=_forget_lost,
)
def lost(look: Look) -> Iterator[Finding]:
    there = {kept.id for _report, kept in _kept(look)}
    answered = {report.agent for part in LISTERS for report, _document in look.parts(part)}
    for row in QuarantinedThing.objects.exclude(Q(keeper="") | Q(agent=None)).select_related("agent"):
        agent = str(row.agent_id)
        if agent in answered and str(row.pk) not in there and not look.is_busy(agent):
            yield Finding(
                "quarantine_lost",
                "quarantine",
                str(row.pk),
                row.name,
                _("The machine does not have it any more."),
                agent=agent,
                host=row.agent.name if row.agent else "",
                since=row.created_at,
            )
