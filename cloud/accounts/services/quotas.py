"""What accounts and projects may have, and what they have: exact, whoever takes and gives at once.

A row of QuotaUsage is a limit with its books. Where there is no limit there are no books: nobody waits for anybody, and
what is used is counted from the rows themselves when somebody asks. Whoever takes or gives shares the account's lock
until the end of the transaction; whoever sets a limit holds it alone, so that its books begin with an exact count.

`take` and `give` come last in their transaction, in the one that writes or deletes the rows that they count: of a
limited account the books are held from there to its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import BigIntegerField, Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Greatest
from django.utils.translation import gettext_lazy as _

from cloud.accounts.models import Account, Project, QuotaUsage
from cloud.common import locks, quotas
from cloud.common.actor import Actor
from cloud.common.errors import Invalid, QuotaExceeded
from cloud.common.quotas import Amounts, Quota
from cloud.common.text import filled
from cloud.events.services import audit

MOST = 2**53 - 1


def take(project: Project | UUID, amounts: Amounts, *, is_forced: bool = False) -> None:
    """Write down that the project has so much more, all or nothing, in the caller's transaction.

    Raises QuotaExceeded, with `name`, `used`, `limit` and `asked`, when the project or its account may not; `is_forced`
    is for what is there already, whether or not it may be.
    """
    changed = {name: number for name, number in amounts.items() if number}
    held = _held(project) if changed else []
    for row in held if not is_forced else []:
        if row.used + changed.get(row.name, 0) > row.limit and changed.get(row.name, 0) > 0:
            raise _exceeded(row, changed[row.name])
    _add(held, changed)


def give(project: Project | UUID, amounts: Amounts) -> None:
    """Write down that the project has so much less, in the caller's transaction; the caller does it once."""
    changed = {name: -number for name, number in amounts.items() if number}
    if changed:
        _add(_held(project), changed)


def give_all(given: Mapping[UUID, Amounts]) -> None:
    """As `give`, for several projects at once: {project: amounts}."""
    for project in sorted(given):
        give(project, given[project])


def _held(project: Project | UUID) -> list[QuotaUsage]:
    """The books of a project and its account, held to the end of the transaction, whatever is written in them: so
    nobody who comes to them twice meets another on the way."""
    key = project.pk if isinstance(project, Project) else project
    known = project.account_id if isinstance(project, Project) else None
    account = known or Project.objects.values_list("account", flat=True).get(pk=key)
    locks.share(_lock(account))
    rows = QuotaUsage.objects.select_for_update(of=("self",), no_key=True).select_related("account", "project")
    mine = rows.filter(Q(project=key) | Q(account=account))
    return list(mine.order_by(F("account").asc(nulls_last=True), "pk"))


def _add(held: Iterable[QuotaUsage], changed: Mapping[str, int]) -> None:
    keys = [row.pk for row in held if row.name in changed]
    if keys:
        used = [When(name=name, then=F("used") + number) for name, number in changed.items()]
        summed = Case(*used, default=F("used"), output_field=BigIntegerField())
        QuotaUsage.objects.filter(pk__in=keys).update(used=Greatest(summed, Value(0)))


def _exceeded(row: QuotaUsage, asked: int) -> QuotaExceeded:
    quota = quotas.declared().get(row.name) or Quota(row.name, row.name)
    owner = row.account or row.project
    return QuotaExceeded(
        filled(
            _("%(owner)s may have %(limit)d of “%(quota)s” and has %(used)d; %(asked)d more were asked for."),
            owner=str(owner),
            quota=quota.label,
            limit=row.limit,
            used=row.used,
            asked=asked,
        ),
        advice=_("Delete what is not needed, ask for less, or ask an administrator for a higher quota."),
        name=row.name,
        used=row.used,
        limit=row.limit,
        asked=asked,
        scope="account" if row.account else "project",
    )


def _lock(account: Any) -> str:
    return f"quotas:{account}"


# limits


@transaction.atomic
def change(owner: Account | Project, *, actor: Actor, limits: Mapping[str, int | None]) -> None:
    """Set limits of an account or of a project by name; None takes a limit away.

    A limit below what is used is fine: nothing more is given then. Raises Invalid for a name that is not counted.
    """
    actor.require("quota.change")
    strange = {f"limits.{name}": [_("Nothing of this name is counted.")] for name in limits.keys() - quotas.declared()}
    if strange:
        raise Invalid(_("These quotas cannot be set."), code="unknown_quota", errors=strange)
    locks.hold(_lock(owner.account_id if isinstance(owner, Project) else owner.pk))
    rows = _of(owner)
    rows.filter(name__in=[name for name, limit in limits.items() if limit is None]).delete()
    there = set(rows.values_list("name", flat=True))
    counted = _count(owner) if limits.keys() - there else {}
    for name, limit in limits.items():
        if limit is not None and name in there:
            rows.filter(name=name).update(limit=limit)
        elif limit is not None:
            rows.create(**_key(owner), name=name, limit=limit, used=counted.get(name, 0))
    audit.record("quota.change", actor=actor, resource=owner, detail={"limits": dict(limits)})


def _key(owner: Account | Project) -> dict[str, Any]:
    return {"project": owner} if isinstance(owner, Project) else {"account": owner}


def _of(owner: Account | Project) -> QuerySet[QuotaUsage]:
    return QuotaUsage.objects.filter(**_key(owner))


def _projects(owner: Account | Project) -> list[UUID]:
    return [owner.pk] if isinstance(owner, Project) else list(owner.projects.values_list("pk", flat=True))


def _count(owner: Account | Project) -> dict[str, int]:
    """What the rows add up to."""
    found: dict[str, int] = {}
    for amounts in quotas.counted(_projects(owner)).values():
        for name, number in amounts.items():
            found[name] = found.get(name, 0) + number
    return found


# what there is


@dataclass(frozen=True)
class Usage:
    """What an account or a project has of something, and may have (None: as much as there is)."""

    owner: Account | Project
    quota: Quota
    used: int
    limit: int | None

    @property
    def scope(self) -> str:
        return "project" if isinstance(self.owner, Project) else "account"

    @property
    def available(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


def usage(owner: Account | Project) -> list[Usage]:
    """Everything that is counted, with what is used at this moment and its limit."""
    books = {row.name: row for row in _of(owner)}
    counted = _count(owner)
    return [
        Usage(
            owner,
            quota,
            books[name].used if name in books else counted.get(name, 0),
            books[name].limit if name in books else None,
        )
        for name, quota in quotas.declared().items()
    ]


@transaction.atomic
def expected(owner: Account | Project) -> dict[str, tuple[int, int]]:
    """Of what is limited: what the books say is used, and what the rows add up to, by name.

    Exact, whatever goes on meanwhile: nobody of the account takes or gives until this transaction ends.
    """
    locks.hold(_lock(owner.account_id if isinstance(owner, Project) else owner.pk))
    counted = _count(owner)
    return {row.name: (row.used, counted.get(row.name, 0)) for row in _of(owner)}


@transaction.atomic
def recount(owner: Account | Project) -> bool:
    """Set the books of an account or a project right by the rows; True when they were wrong."""
    wrong = {name: found for name, (written, found) in expected(owner).items() if written != found}
    for name, found in wrong.items():
        _of(owner).filter(name=name).update(used=found)
    return bool(wrong)
