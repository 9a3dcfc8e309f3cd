"""Lists of many rows, measured: pages at the beginning, further on and near the end, in every way to ask for them."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.urls import resolve

from cloud.accounts.models import User
from cloud.accounts.services import actors, bootstrap, tokens
from cloud.common.actor import platform
from cloud.common.api.cursor import Cursor
from cloud.portal.bench import cases
from cloud.portal.bench.meter import Meter, Sample, Stopwatch

LISTS = ("instances", "volumes", "nics", "ip-addresses", "jobs", "audit-records")
SLOWEST = 8
AGAIN = 20


@dataclass
class Measured:
    """What came of a list's requests. Times in milliseconds; `bare_ms` is the page's SQL alone, run again."""

    samples: list[Sample] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)

    def add(self, sample: Sample, bare_ms: float) -> None:
        sample.body = None
        self.samples.append(sample)
        self.bare_ms.append(bare_ms)

    def figures(self) -> dict[str, Any]:
        times = [sample.server_ms for sample in self.samples]
        slowest = sorted(self.samples, key=lambda sample: -sample.server_ms)[:SLOWEST]
        return {
            "requests": len(times),
            "p50_ms": percentile(times, 50),
            "p95_ms": percentile(times, 95),
            "most_ms": max(times),
            "wall_p95_ms": percentile([sample.wall_ms for sample in self.samples], 95),
            "bare_sql_p95_ms": percentile(self.bare_ms, 95),
            "most_sql": max(len(sample.statements) for sample in self.samples),
            "slowest": [[round(sample.server_ms, 1), sample.path] for sample in slowest],
        }


@dataclass
class Lister:
    """Asks for pages as an administrator and as a member of a project of middling size."""

    meter: Meter
    member: User
    most: int  # requests a list and a caller
    say: Callable[[str], None]
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - the same cases every time

    def measure(self, prefix: str) -> dict[str, Any]:
        """The figures of a list: of all its requests, of each way to narrow it, and of its slowest page asked again."""
        whole: Measured = Measured()
        groups: dict[str, Measured] = defaultdict(Measured)
        secrets: dict[str, str] = {}
        view = resolve(f"/api/v1/{prefix}/").func.cls()  # type: ignore[attr-defined]
        for user in (bootstrap.ensure_admin(), self.member):
            started = time.monotonic()
            secrets[user.username] = token = tokens.create(actor=platform("bench"), user=user, name="bench")[1]
            wanted = cases.of(view, view.queryset.all().visible_to(actors.of(user)))
            if len(wanted) > self.most:
                wanted = self.dice.sample(wanted, self.most)
            self._get(wanted[0].path(prefix), token)  # what a process does once is done
            for case in wanted:
                for sample in self._pages(case, prefix, token, view):
                    bare_ms = self._bare(sample)
                    for measured in (whole, groups[f"{user.username}: {case.group}"]):
                        measured.add(sample, bare_ms)
            self.say(f"{prefix}: {len(wanted)} cases as {user.username} in {time.monotonic() - started:.0f} s")
        figures = {name: measured.figures() for name, measured in groups.items()}
        worst = max(groups, key=lambda name: figures[name]["p50_ms"])
        slowest = max(groups[worst].samples, key=lambda sample: sample.server_ms).path
        again = [self._get(slowest, secrets[worst.partition(":")[0]]).server_ms for _ in range(AGAIN)]
        return {
            **whole.figures(),
            "worst_group": worst,
            "worst_path": slowest,
            "worst_p95_ms": percentile(again, 95),
            "groups": figures,
        }

    def _pages(self, case: cases.Case, prefix: str, token: str, view: Any) -> list[Sample]:
        """The first page, the second by its link, and one near the end."""
        first = self._get(case.path(prefix), token)
        if first.body["next"] is None:
            return [first]
        second = self._get(first.body["next"], token)
        down = case.ordering.startswith("-")
        turned = cases.Case(case.group, case.query, case.ordering[1:] if down else f"-{case.ordering}")
        last = self._get(turned.path(prefix), token).body["results"][-1]["uuid"]
        mark = Cursor.of(view.queryset.get(pk=last), cases.column(view, case.ordering)).encode()
        return [first, second, self._get(f"{case.path(prefix)}&cursor={mark}", token)]

    def _get(self, path: str, token: str) -> Sample:
        sample = self.meter.get(path, token)
        if sample.status != 200:
            raise AssertionError(f"{path}: {sample.status} {sample.body}")
        return sample

    def _bare(self, sample: Sample) -> float:
        """The time that the page's own statement takes without us, in milliseconds."""
        paged = [each for each in sample.statements if "ORDER BY" in each[0] and " LIMIT " in each[0]]
        with connection.cursor() as cursor:
            watch = Stopwatch(connection.connection)
            cursor.cursor.execute(*paged[-1])
            cursor.cursor.fetchall()
            return watch.seconds() * 1000


def percentile(values: Sequence[float], rank: int) -> float:
    """The value below which `rank` percent of the values lie."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[rank - 1]
