"""Giving addresses out, each to one holder, however many ask at once.

Whoever wants an address first takes an advisory lock on it that lasts as long as the transaction, and never waits for
one: an address that somebody else is about to take or to free counts as taken. So no two callers wait for each other,
and no order of asking can deadlock. The row's unique constraint is the last word.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.acts import acting
from cloud.common.constraints import told
from cloud.common.errors import Conflict, Exhausted, Missing
from cloud.events.services import audit
from network.models import AddressPurpose, IpAddress, IpRange, L2Network, L3Network, Nic
from network.services import ipv4

RESERVED_AT_ONCE = 256

_LOCK = "pg_try_advisory_xact_lock(hashtextextended(%(l3)s || ' ' || host({address}::inet), 0))"
_LOCK_ALL = f"SELECT {_LOCK.format(address='a')} FROM unnest(%(addresses)s::text[]) AS a"  # noqa: S608 - our own words only
# The free addresses from {start} to {end}. CASE, so that only free addresses are locked; OFFSET 0, so that each address
# is one index probe and the search ends at the last one wanted instead of joining a whole range with all that is taken.
_FREE = """
SELECT s.address
FROM (SELECT {start} + generate_series(0, {end} - {start}) AS address) s
WHERE CASE
    WHEN EXISTS (SELECT 1 FROM network_ipaddress t WHERE t.l3_id = %(l3)s::uuid AND t.address = s.address OFFSET 0)
    THEN false ELSE {wanted}
END
"""
_LOCKED = _LOCK.format(address="s.address")
# As many free addresses as there are holders, looked for from one column of each range on, locked and written down.
# None of the ranges can be deleted before the transaction ends; other changes of them go on.
_TAKE = """
WITH ranges AS MATERIALIZED (
    SELECT uuid, start, "end", first_free FROM network_iprange WHERE l3_id = %(l3)s::uuid ORDER BY start FOR KEY SHARE
), found AS MATERIALIZED (
    SELECT row_number() OVER () AS place, first.address
    FROM (SELECT free.address FROM ranges r CROSS JOIN LATERAL ({free}) free LIMIT %(count)s) first
), made AS (
    INSERT INTO network_ipaddress
        (uuid, name, description, project_id, created_at, updated_at, l3_id, address, purpose, holder)
    SELECT gen_random_uuid(), w.name, '', w.project::uuid, statement_timestamp(), statement_timestamp(),
           %(l3)s::uuid, found.address, %(purpose)s, w.holder::uuid
    FROM found
    JOIN unnest(%(holders)s::text[], %(names)s::text[], %(projects)s::text[])
        WITH ORDINALITY AS w(holder, name, project, place) USING (place)
    ON CONFLICT DO NOTHING
    RETURNING holder, address
)
SELECT (SELECT count(*) FROM ranges), (SELECT count(*) FROM found), made.holder, host(made.address)
FROM (SELECT 1) one LEFT JOIN made ON true
"""
TAKE = {
    column: _TAKE.replace("{free}", _FREE.format(start=f"r.{column}", end='r."end"', wanted=_LOCKED))
    for column in ("first_free", "start")
}
# Each range's hint moves on to its first free address.
_RAISE_HINTS = """
UPDATE network_iprange r SET first_free = found.address
FROM (
    SELECT r.uuid, COALESCE(({free} LIMIT 1), r."end") AS address FROM network_iprange r WHERE r.l3_id = %(l3)s::uuid
) found
WHERE r.uuid = found.uuid AND r.first_free < found.address
""".replace("{free}", _FREE.format(start="r.first_free", end='r."end"', wanted="true").strip())
_NEXT = _FREE.replace("s.address", "host(s.address)", 1).format(
    start="%(start)s::inet", end="%(end)s::inet", wanted="true"
)


@dataclass(frozen=True)
class Holder:
    """Who gets an address: the uuid and the name it is written down with, and the project it counts for."""

    uuid: UUID
    name: str
    project: Any


def take_free(l3: L3Network, holders: Sequence[Holder], *, purpose: AddressPurpose) -> dict[UUID, str]:
    """The lowest free addresses of the network, one for each holder, taken in the caller's transaction.

    One statement however many are wanted. Raises Exhausted, and then the caller rolls back.
    """
    taken: dict[UUID, str] = {}
    # First from the hints on; when these find nothing, the whole of each range: a hint may be too high.
    for column in TAKE:
        has_found = True
        while has_found and len(taken) < len(holders):
            waiting = [holder for holder in holders if holder.uuid not in taken]
            # Found and not taken is what another took and committed between our look and our lock: look again.
            has_ranges, has_found, got = _take(TAKE[column], l3, waiting, purpose)
            if not has_ranges:
                raise Exhausted(
                    _("%(network)s has no IP range.") % {"network": l3},
                    code="no_ip_range",
                    advice=_("Add an IP range to the L3 network."),
                )
            taken |= got
    if len(taken) < len(holders):
        raise Exhausted(
            _("%(network)s has no free address left.") % {"network": l3},
            code="addresses_exhausted",
            advice=_("Add an IP range, or delete what no longer needs its address."),
        )
    if taken:
        transaction.on_commit(lambda: _raise_hints(l3.pk), robust=True)
    return taken


def _take(
    query: str, l3: L3Network, holders: Sequence[Holder], purpose: AddressPurpose
) -> tuple[bool, bool, dict[UUID, str]]:
    """Whether there are ranges, whether a free address was found, and which were taken, by holder."""
    with connection.cursor() as cursor:
        cursor.execute(query, arguments(l3, holders, purpose))
        rows = cursor.fetchall()
    return bool(rows[0][0]), bool(rows[0][1]), {row[2]: row[3] for row in rows if row[2] is not None}


def arguments(l3: L3Network, holders: Sequence[Holder], purpose: AddressPurpose) -> dict[str, Any]:
    """What `TAKE` is asked with."""
    return {
        "l3": str(l3.pk),
        "count": len(holders),
        "purpose": str(purpose),
        "holders": [str(holder.uuid) for holder in holders],
        "names": [holder.name[:255] for holder in holders],
        "projects": [str(getattr(holder.project, "pk", holder.project)) for holder in holders],
    }


def take(
    l3: L3Network,
    ip: str,
    *,
    purpose: AddressPurpose,
    holder: UUID | None,
    name: str,
    project: Any,
    actor: Actor,
    field: str = "ip",
) -> IpAddress:
    """Exactly this address, taken in the caller's transaction.

    Raises Invalid (`address_out_of_range`) when it is in no range of the network, Conflict (`address_taken`) when it is
    not free, with who has it if the actor sees that.
    """
    wanted = str(ipv4.address(ip, field))
    inside = next((each for each in _ranges_kept(l3) if ipv4.is_between(each.start, wanted, each.end)), None)
    if inside is None and purpose == AddressPurpose.NIC:
        raise ipv4.invalid(
            field,
            _("%(ip)s is in no IP range of %(network)s.") % {"ip": wanted, "network": l3},
            code="address_out_of_range",
        )
    if not _lock(l3.pk, [wanted]):
        raise _is_taken(wanted, None, field)
    taken = _insert(l3, wanted, purpose=purpose, holder=holder, name=name, project=project, actor=actor, field=field)
    if inside is not None:
        transaction.on_commit(lambda: _raise_hints(l3.pk), robust=True)
    return taken


def free(rows: Iterable[IpAddress]) -> int:
    """Give addresses back, in the caller's transaction; an address that is free already is fine. Returns how many."""
    by_network: dict[UUID, list[str]] = defaultdict(list)
    keys = []
    for row in rows:
        by_network[row.l3_id].append(row.address)
        keys.append(row.pk)
    for l3, addresses in by_network.items():
        # Nobody else can hold these locks for long; whoever asks meanwhile sees a taken address instead of waiting.
        _lock(l3, addresses)
        transaction.on_commit(lambda key=l3, freed=addresses: _lower_hints(key, freed), robust=True)  # type: ignore[misc]
    deleted, _kinds = IpAddress.objects.filter(pk__in=keys).delete()
    return deleted


def free_of(holders: Iterable[UUID], purpose: AddressPurpose) -> int:
    """Give back what these hold for this purpose; returns how many addresses that were."""
    return free(IpAddress.objects.filter(holder__in=list(holders), purpose=purpose))


@acting("ip_address.reserve")
def reserve(l3: L3Network, *, start: str, actor: Actor, end: str = "", note: str = "") -> list[IpAddress]:
    """Keep addresses from being given out, as those of machines outside of the platform; at most 256 at once.

    Raises Conflict (`address_taken`) when one of them is not free, (`address_in_use`) when it is another network's on
    the same L2 network.
    """
    wanted = _each(start, end)
    _expect_nobodys_beside(l3, wanted)
    own: dict[str, Any] = {"holder": None, "project": l3.project, "actor": actor}
    rows = [take(l3, ip, purpose=AddressPurpose.RESERVED, name=note or ip, field="start", **own) for ip in wanted]
    audit.record("ip_address.reserve", actor=actor, resource=l3, detail={"start": start, "end": end or start})
    return rows


@acting("ip_address.release")
def release(l3: L3Network, *, start: str, actor: Actor, end: str = "") -> None:
    """Give reserved addresses back; those that are not reserved are left alone.

    Raises Missing when none of them is reserved.
    """
    wanted = _each(start, end)
    rows = IpAddress.objects.filter(l3=l3, purpose=AddressPurpose.RESERVED, address__in=wanted)
    if not free(rows):
        raise Missing(_("None of these addresses is reserved."), code="not_reserved")
    audit.record("ip_address.release", actor=actor, resource=l3, detail={"start": start, "end": end or start})


def next_free(l3: L3Network) -> str | None:
    """The address that would be given out next, when nobody else asks; nothing is taken."""
    for each in l3.ranges.order_by("start"):
        for start in (each.first_free, each.start):
            if found := _next(l3.pk, start, each.end):
                return found
    return None


def _ranges_kept(l3: L3Network) -> list[IpRange]:
    """The network's ranges; none of them can be deleted before the transaction ends, other changes go on."""
    query = "SELECT * FROM network_iprange WHERE l3_id = %s ORDER BY start FOR KEY SHARE"
    return list(IpRange.objects.raw(query, [l3.pk]))


def _insert(
    l3: L3Network,
    ip: str,
    *,
    purpose: AddressPurpose,
    holder: UUID | None,
    name: str,
    project: Any,
    actor: Actor,
    field: str,
) -> IpAddress:
    row = IpAddress.objects.filter(l3=l3, address=ip).first()
    with told({"ip_address_once": _is_taken(ip, used_by(row, actor) if row is not None else None, field)}):
        return IpAddress.objects.create(
            l3=l3, address=ip, purpose=purpose, holder=holder, name=name[:255], project=project
        )


def used_by(row: IpAddress, actor: Actor | None) -> dict[str, Any]:
    """Who has an address, as {purpose, uuid, name}: for whom it is; who that is stays unsaid to those who see it not.

    Of a NIC's the uuid is its instance's.
    """
    if actor is None or not actor.sees(row):
        return {"purpose": row.purpose, "uuid": None, "name": ""}
    is_nic = row.purpose == AddressPurpose.NIC
    nic = Nic.objects.filter(address=row.address, l3=row.l3_id).first() if is_nic else None
    return {"purpose": row.purpose, "uuid": nic.instance_uuid if nic else row.holder, "name": row.name}


def _is_taken(ip: str, holder: dict[str, Any] | None, field: str) -> Conflict:
    return Conflict(
        _("The address %(ip)s is taken.") % {"ip": ip},
        code="address_taken",
        advice=_("Choose another address, or none to be given a free one."),
        errors={field: [_("This address is taken.")]},
        used_by=holder,
    )


def in_use_beside(field: str, ip: str, other: L3Network) -> Conflict:
    """That an address is another network's on the same wire, where two machines would have it."""
    return Conflict(
        _("%(ip)s belongs to %(network)s, which is on the same L2 network.") % {"ip": ip, "network": other},
        code="address_in_use",
        advice=_("Leave this address out, or reserve it there first."),
        errors={field: [_("Another network on the same L2 network has this address.")]},
    )


def _expect_nobodys_beside(l3: L3Network, ips: list[str]) -> None:
    """Raise Conflict when another network on the same wire may give one of the addresses to an instance."""
    # As ranges are: compared with what is there, so that it must stand still.
    L2Network.objects.select_for_update(no_key=True).get(pk=l3.l2_id)
    for each in IpRange.objects.filter(l3__l2=l3.l2_id).exclude(l3=l3).select_related("l3"):
        kept = each.l3.addresses.filter(purpose__in=(AddressPurpose.GATEWAY, AddressPurpose.RESERVED), address__in=ips)
        for ip in set(ips) - set(kept.values_list("address", flat=True)):
            if ipv4.is_between(each.start, ip, each.end):
                raise in_use_beside("start", ip, each.l3)


def _each(start: str, end: str) -> list[str]:
    first, last = ipv4.address(start, "start"), ipv4.address(end or start, "end")
    if last < first:
        raise ipv4.invalid("end", _("The end comes before the start."))
    if int(last) - int(first) >= RESERVED_AT_ONCE:
        raise ipv4.invalid("end", _("At most %(count)d addresses at once.") % {"count": RESERVED_AT_ONCE})
    return [str(first + step) for step in range(int(last) - int(first) + 1)]


def _next(l3: UUID, start: str, end: str) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute(_NEXT + " LIMIT 1", {"l3": str(l3), "start": start, "end": end})
        row = cursor.fetchone()
    return row[0] if row else None


def _lock(l3: UUID, addresses: list[str]) -> bool:
    """Lock these addresses until the transaction ends; whether all of them could be."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_ALL, {"l3": str(l3), "addresses": addresses})
        return all(row[0] for row in cursor.fetchall())


def _raise_hints(l3: UUID) -> None:
    """Move the hints of a network's ranges to their first free addresses, from where they are."""
    with connection.cursor() as cursor:
        cursor.execute(_RAISE_HINTS, {"l3": str(l3)})


def _lower_hints(l3: UUID, addresses: list[str]) -> None:
    for ip in addresses:
        IpRange.objects.filter(l3=l3, start__lte=ip, end__gte=ip, first_free__gt=ip).update(first_free=ip)
