"""What may be done with a resource, declared once: the same words refuse an act and say why it is not possible now.

@acting("instance.start", states=(State.STOPPED, State.CRASHED), lock=_locked)
def start(instance: Instance, *, actor: Actor) -> Job: ...

A service so declared runs in one transaction: rights, the row's lock, states, further checks, then the act itself.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import NotPermitted, Problem
from cloud.common.models import busy, wrong_state
from cloud.common.text import filled

# From rows to what stands against an act on them, by key: asked for all rows of a page at once.
Check = Callable[[Sequence[Any], Actor], Mapping[Any, Problem]]
Service = TypeVar("Service", bound=Callable[..., Any])
Holders = Callable[[Sequence[Any]], Mapping[Any, str | Problem]]
_holders: list[Holders] = []


def fill_holders(find: Holders) -> None:
    """Say who finds the jobs that hold rows ({key: the job's address}); called once, by `cloud.jobs`.

    Where a job has ended and still owes something there, it is the Problem that this means.
    """
    _holders[:] = [find]


def holders(rows: Sequence[Any]) -> Mapping[Any, str | Problem]:
    """What holds each row, by the row's key, as `fill_holders` says; rows that no job holds are left out."""
    return _holders[-1](rows) if _holders and rows else {}


@dataclass(frozen=True)
class Act:
    """`states` are the settled states it needs (none: any); an exclusive act is not possible while a job is at work.

    `checks` come last, in order, each for the rows that nothing stood against before.
    """

    permission: str
    states: tuple[str, ...] = ()
    is_exclusive: bool = False
    checks: tuple[Check, ...] = ()

    def against(self, rows: Sequence[Any], actor: Actor, held: Mapping[Any, str | Problem]) -> dict[Any, Problem]:
        """What stands against this act on each of the rows, by key. `held` is what `holders` said of them."""
        if not actor.may(self.permission):
            return {row.pk: _not_granted(self.permission, actor) for row in rows}
        found: dict[Any, Problem] = {}
        for row in rows:
            if self.is_exclusive and (_activity(row) or row.pk in held):
                by = held.get(row.pk)
                found[row.pk] = by if isinstance(by, Problem) else busy(row, by)
            elif self.states and row.state not in self.states:
                found[row.pk] = wrong_state(row, self.states)
        for check in self.checks:
            if rest := [row for row in rows if row.pk not in found]:
                found.update(check(rest, actor))
        return found

    def expect(self, row: Any, actor: Actor) -> None:
        """Raise what stands against this act on the row. Whether a job holds it is settled where the job is opened."""
        held = holders([row]) if self.is_exclusive and _activity(row) else {}
        for problem in self.against([row], actor, held).values():
            raise problem


def acting(
    permission: str,
    *,
    states: Sequence[str] = (),
    is_exclusive: bool | None = None,
    checks: Sequence[Check] = (),
    lock: Callable[[Any], Any] | None = None,
    is_of_project: bool = True,
) -> Callable[[Service], Service]:
    """Declare a service `(row, *, actor, …)` as an act on one row.

    An act that needs states is exclusive unless said otherwise. `lock` reads the row again, held until the
    transaction ends, so that two acts at once see each other. `is_of_project` is false for rows that belong to no
    project, as accounts.
    """
    declared = Act(permission, tuple(states), bool(states) if is_exclusive is None else is_exclusive, tuple(checks))

    def decorate(service: Service) -> Service:
        @functools.wraps(service)
        def act(row: Any, *, actor: Actor, **params: Any) -> Any:
            with transaction.atomic():
                actor.require(permission, row if is_of_project else None)
                held = lock(row) if lock else row
                declared.expect(held, actor)
                return service(held, actor=actor, **params)

        act.act = declared  # type: ignore[attr-defined]
        return act  # type: ignore[return-value]

    return decorate


def act_of(service: Any) -> Act | None:
    """The declaration of a service; None when it has none."""
    return getattr(service, "act", None)


def _activity(row: Any) -> str:
    activity: str = getattr(row, "activity", "")
    return activity


def each(rule: Callable[[Any, Actor], Problem | None]) -> Check:
    """A check of a rule about one row that needs no further query."""

    def check(rows: Sequence[Any], actor: Actor) -> dict[Any, Problem]:
        return {row.pk: problem for row in rows if (problem := rule(row, actor)) is not None}

    return check


def answers(rows: Sequence[Any], acts: Mapping[str, Act], actor: Actor) -> dict[Any, dict[str, dict[str, Any]]]:
    """For each row, by key, what each act would answer now: {"start": {allowed, code, reason, advice, job}}.

    A fixed number of queries, however many rows. `job` is the address of the job that is in the way, or null. What
    depends on an act's parameters, or on room for them, is told by the act alone.
    """
    held = holders(rows) if any(act.is_exclusive for act in acts.values()) else {}
    said: dict[Any, dict[str, dict[str, Any]]] = {row.pk: {} for row in rows}
    for name, act in acts.items():
        against = act.against(rows, actor, held)
        for row in rows:
            said[row.pk][name] = answer(against.get(row.pk))
    return said


def answer(problem: Problem | None) -> dict[str, Any]:
    """One act's answer: allowed, or the code, reason and advice of what stands against it."""
    if problem is None:
        return {"allowed": True, "code": "", "reason": "", "advice": "", "job": None}
    return {
        "allowed": False,
        "code": problem.code,
        "reason": str(problem.detail or problem.title),
        "advice": str(problem.advice),
        "job": problem.extra.get("job"),
    }


def _not_granted(permission: str, actor: Actor) -> NotPermitted:
    return NotPermitted(
        filled(_("%(name)s lacks the permission %(permission)s."), name=actor.name, permission=permission),
        permission=permission,
    )
