"""The list of domains that nobody here knows: kept by what hosts tell, changed when that changes."""

from collections.abc import Iterable
from uuid import UUID

from cloud.infra.models import Agent, Host
from compute.messages import DomainEvent, DomainInventory, DomainSummary
from compute.models import Instance, UnknownDomain

# What a host says of a domain that is no more.
GONE = "undefined"


def note_event(agent: Agent, event: DomainEvent) -> None:
    """One domain changed its state, or went."""
    if event.is_ours:
        return
    if event.reason == GONE:
        UnknownDomain.objects.filter(host__agent=agent, domain_uuid=event.uuid).delete()
    else:
        _note(agent, [DomainSummary(event.uuid, event.name, event.state, is_ours=False)])


def note_all(agent: Agent, report: DomainInventory) -> None:
    """Everything that there is on the host: what is not in the report is no more. Two queries while nothing changes."""
    ours = [domain.uuid for domain in report.domains if domain.is_ours]
    known = {str(key) for key in Instance.objects.filter(pk__in=ours).values_list("pk", flat=True)} if ours else set()
    unknown = {domain.uuid: domain for domain in report.domains if not (domain.is_ours and domain.uuid in known)}
    held = {str(row.domain_uuid): row for row in UnknownDomain.objects.filter(host__agent=agent)}
    if gone := held.keys() - unknown.keys():
        UnknownDomain.objects.filter(host__agent=agent, domain_uuid__in=list(gone)).delete()
    _note(agent, (domain for uuid, domain in unknown.items() if uuid not in held or _differs(held[uuid], domain)))


def _differs(row: UnknownDomain, domain: DomainSummary) -> bool:
    return (row.name, row.state, row.is_ours) != (domain.name[:255], domain.state, domain.is_ours)


def _note(agent: Agent, domains: Iterable[DomainSummary]) -> None:
    changed = list(domains)
    host = Host.objects.filter(agent=agent).first() if changed else None
    if host is None:
        return
    for domain in changed:
        UnknownDomain.objects.update_or_create(
            host=host,
            domain_uuid=UUID(domain.uuid),
            defaults={
                "name": domain.name[:255],
                "state": domain.state,
                "is_ours": domain.is_ours,
                "project_id": host.project_id,
            },
        )
