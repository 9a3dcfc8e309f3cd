"""Questions to the metric store, within limits and within what the asker may see."""

import time as clock
from functools import cache
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from cloud.common.actor import Actor
from cloud.common.driver import DriverError, Rejected
from cloud.common.errors import Invalid, Problem, Unavailable
from monitoring.drivers.prometheus import PrometheusStore

LONGEST_QUERY = 8192
LONGEST_RANGE_S = 400 * 86400
MOST_POINTS = 11_000
SMALLEST_STEP_S = 1.0
USUAL_STEP_S, USUAL_POINTS = 10.0, 300


@cache
def _store(url: str) -> PrometheusStore:
    return PrometheusStore(url)


def instant(query: str, *, time: float | None = None, actor: Actor) -> dict[str, Any]:
    """The store's answer to PromQL at a time (Unix seconds, now by default): Prometheus' document as it is.

    Raises NotPermitted; Invalid for a query that the store refuses; Unavailable when it does not answer.
    """
    actor.require("metric.view")
    _check_query(query)
    at = clock.time() if time is None else time
    return _asked("query", query, time=at, only=scope(actor))


def over_range(query: str, *, start: float, end: float, step_s: float | None = None, actor: Actor) -> dict[str, Any]:
    """The store's answer to PromQL from `start` to `end` (Unix seconds).

    Without a step some 300 points, 10 s apart or more. Raises as `instant` does, and Invalid for a range over 400 days
    or 11,000 points, or one that ends before it begins.
    """
    actor.require("metric.view")
    _check_query(query)
    span = end - start
    if span < 0:
        raise _invalid("end", _("The range ends before it begins."))
    if span > LONGEST_RANGE_S:
        raise _invalid("start", _("The range is longer than %(days)s days.") % {"days": LONGEST_RANGE_S // 86400})
    step = max(USUAL_STEP_S, span // USUAL_POINTS) if step_s is None else step_s
    if step < SMALLEST_STEP_S:
        raise _invalid("step", _("Give a step of a second or more."))
    if span / step > MOST_POINTS:
        needed = int(span / MOST_POINTS) + 1
        raise _invalid(
            "step",
            _("That is more than %(most)s points; give a step of %(needed)s seconds or more.")
            % {"most": MOST_POINTS, "needed": needed},
        )
    return _asked("query_range", query, start=start, end=end, step_s=step, only=scope(actor))


def scope(actor: Actor) -> str:
    """The selector that every series must match for this actor: none for who sees all, else its projects.

    The ids are uuids, so that nothing in them can end the selector.
    """
    if actor.sees_all:
        return ""
    return '{project=~"%s"}' % ("|".join(sorted(str(project) for project in actor.projects)) or "none")


def _asked(verb: str, query: str, **parameters: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(_store(settings.MICA["metrics_url"]), verb)(query, **parameters)
    except DriverError as error:
        raise _problem(error) from error
    return answer


def _problem(error: DriverError) -> Problem:
    if isinstance(error, Rejected):
        return Invalid(
            _("The metric store refuses this query."),
            code=error.code,
            errors={"query": [error.detail]},
            advice=_("Correct the PromQL, or ask for fewer series or a shorter range."),
        )
    return Unavailable(
        _("The metric store does not answer."),
        code="metrics_unavailable",
        advice=_(
            "Try again in a few seconds. If it stays, an administrator should look at the store (MICA_METRICS_URL)."
        ),
    )


def _check_query(query: str) -> None:
    if not query.strip() or "\x00" in query or len(query) > LONGEST_QUERY:
        raise _invalid("query", _("Give PromQL of 1 to %(most)s characters.") % {"most": LONGEST_QUERY})


def _invalid(field: str, reason: str) -> Invalid:
    return Invalid(_("The metrics cannot be queried this way."), code="invalid_range", errors={field: [reason]})
