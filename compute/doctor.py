"""What the doctor looks for in domains and instances."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Q, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Kept, Look, Report, asks, check, ledger, lists
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.infra.models import Agent, Host, HostCapacity
from compute.messages import DOMAIN_KEEPER, AsideDomain, DomainSummary
from compute.models import Instance, InstanceState
from compute.models.instances import ON_HOST
from compute.services import reality
from compute.workflows import bookings

QUARANTINE = _("save its description in the host's quarantine and switch it off")


@asks("compute")
def hosts() -> dict[str, Document]:
    return {str(agent): {} for agent in Host.objects.exclude(agent=None).values_list("agent", flat=True)}


@lists("compute")
def kept(document: Document) -> Iterator[Kept]:
    for domain in map(AsideDomain.from_document, document["aside"]):
        yield Kept(domain.id, DOMAIN_KEEPER, "domain", domain.name, {"uuid": domain.uuid}, domain.at)


def _domains(look: Look) -> list[tuple[Report, DomainSummary]]:
    return [
        (report, DomainSummary.from_document(domain))
        for report, document in look.parts("compute")
        for domain in document["domains"]
    ]


def _of_domain(kind: str, report: Report, domain: DomainSummary, detail: Any, **more: Any) -> Finding:
    return Finding(
        kind,
        "domain",
        domain.uuid,
        domain.name,
        detail,
        agent=report.agent,
        host=report.name,
        thing={"uuid": domain.uuid},
        **more,
    )


@check("unknown_domain", "leak", label=_("A domain that the platform did not define"), is_note=True)
def unknown_domain(look: Look) -> Iterator[Finding]:
    """Listed, and never touched."""
    for report, domain in look.once(_domains):
        if not domain.is_ours:
            yield _of_domain("unknown_domain", report, domain, filled(_("It is %(state)s."), state=domain.state))


def _has_no_instance(finding: Finding) -> bool:
    return not Instance.objects.exclude(state=InstanceState.DESTROYED).filter(pk=finding.resource_uuid).exists()


@check(
    "domain_leak",
    "leak",
    label=_("A domain of ours without its instance"),
    mend=QUARANTINE,
    keeper=DOMAIN_KEEPER,
    still=_has_no_instance,
)
def domain_leak(look: Look) -> Iterator[Finding]:
    """Of instances in the recycle bin nothing is on a host either."""
    rows = Instance.objects.exclude(state=InstanceState.DESTROYED)
    known = {str(key) for key in rows.values_list("pk", flat=True)}
    for report, domain in look.once(_domains):
        if domain.is_ours and domain.uuid not in known and not look.is_busy(domain.uuid):
            detail = filled(_("No instance is known for it. It is %(state)s."), state=domain.state)
            yield _of_domain("domain_leak", report, domain, detail)


def _is_elsewhere(finding: Finding) -> bool:
    agent = UUID(finding.agent)
    rows = Instance.objects.filter(pk=finding.resource_uuid, activity="")
    return rows.exclude(host__agent=agent).exclude(host=None, last_host__agent=agent).exists()


@check(
    "domain_elsewhere",
    "leak",
    label=_("A domain on another host than its instance"),
    mend=QUARANTINE,
    keeper=DOMAIN_KEEPER,
    still=_is_elsewhere,
)
def domain_elsewhere(look: Look) -> Iterator[Finding]:
    """One that runs may be a second life of the instance: that is for a person."""
    rows = Instance.objects.exclude(state=InstanceState.DESTROYED).filter(activity="")
    places = rows.values_list(
        "pk", Coalesce("host__agent", "last_host__agent"), Coalesce("host__name", "last_host__name")
    )
    known = {str(key): (str(agent), name) for key, agent, name in places if agent}
    for report, domain in look.once(_domains):
        agent, host = known.get(domain.uuid, (report.agent, ""))
        if domain.is_ours and agent != report.agent and not look.is_busy(domain.uuid):
            detail = filled(_("Its instance is on %(host)s. It is %(state)s."), host=host, state=domain.state)
            more = {"is_mendable": domain.state == "stopped"}
            yield _of_domain("domain_elsewhere", report, domain, detail, **more)


def _look_there(finding: Finding, actor: Actor) -> None:
    """Ask the host again and settle what it says, as the reconciler does."""
    agent = Agent.objects.filter(pk=finding.agent).first()
    if agent is not None:
        reality.look(agent)


@check(
    "instance_state",
    "drift",
    label=_("An instance in another state than its domain"),
    mend=_("show it as it is"),
    fix=_look_there,
)
def instance_state(look: Look) -> Iterator[Finding]:
    states: dict[str, dict[str, str]] = {report.agent: {} for report, _document in look.parts("compute")}
    names = {report.agent: report.name for report, _document in look.parts("compute")}
    for report, domain in look.once(_domains):
        if domain.is_ours:
            states[report.agent][domain.uuid] = domain.state
    here = Q(host__agent__in=states) | Q(host=None, last_host__agent__in=states)
    rows = Instance.objects.filter(here, activity="", settled_at__lt=look.asked_at).exclude(
        state=InstanceState.DESTROYED
    )
    for row in rows.annotate(agent=Coalesce("host__agent", "last_host__agent")):
        there = states[str(row.agent)]
        seen = reality.SETTLED.get(there.get(str(row.pk), "stopped"))
        is_off = seen == InstanceState.STOPPED and row.state not in ON_HOST
        if seen and seen != row.state and not is_off and not look.is_busy(row.pk):
            yield Finding(
                "instance_state",
                "instance",
                str(row.pk),
                row.name,
                filled(_("It says %(state)s; its domain is %(seen)s."), state=row.state, seen=str(seen)),
                agent=str(row.agent),
                host=names[str(row.agent)],
                since=row.settled_at,
            )


def _leave(finding: Finding, actor: Actor) -> None:
    row = Instance.objects.select_for_update(of=("self",)).filter(pk=finding.resource_uuid, activity="").first()
    if row is not None and row.state not in ON_HOST:
        bookings.leave_host(row.pk)


@check(
    "room_leak",
    "leak",
    label=_("CPU and memory booked for an instance that does not run"),
    mend=_("give them back"),
    fix=_leave,
)
def room_leak(look: Look) -> Iterator[Finding]:
    for row in Instance.objects.filter(is_reserved=True, activity="").exclude(state__in=ON_HOST):
        if not look.is_busy(row.pk):
            detail = filled(_("It is %(state)s."), state=row.state)
            yield Finding("room_leak", "instance", str(row.pk), row.name, detail, since=row.settled_at)


# books


def _booked() -> Any:
    """The books of hosts, each with what its instances need."""
    rows = Instance.objects.filter(host=OuterRef("host"), is_reserved=True).order_by().values("host")
    return HostCapacity.objects.annotate(
        cpu_needed=Coalesce(rows.annotate(total=Sum("cpu")).values("total"), 0),
        memory_needed_bytes=Coalesce(rows.annotate(total=Sum("memory_bytes")).values("total"), 0),
    )


def _differences() -> Iterable[tuple[Any, str, Any]]:
    differing = ~Q(cpu_used=F("cpu_needed")) | ~Q(memory_used_bytes=F("memory_needed_bytes"))
    for row in _booked().filter(differing).select_related("host"):
        yield (
            row.pk,
            str(row.host),
            filled(
                _("%(cpu)d CPUs and %(memory)d bytes are booked, %(cpu_needed)d and %(memory_needed)d are needed."),
                cpu=row.cpu_used,
                memory=row.memory_used_bytes,
                cpu_needed=row.cpu_needed,
                memory_needed=row.memory_needed_bytes,
            ),
        )


def _recount(key: Any) -> None:
    # Whoever books takes this row first, and the instance's after it.
    if HostCapacity.objects.select_for_update().filter(pk=key).first() is not None:
        row = _booked().get(pk=key)
        HostCapacity.objects.filter(pk=key).update(cpu_used=row.cpu_needed, memory_used_bytes=row.memory_needed_bytes)


ledger(
    "host_books",
    label=_("A host whose books do not add up"),
    resource_type="host",
    differences=_differences,
    recompute=_recount,
    mend=_("count again"),
)
