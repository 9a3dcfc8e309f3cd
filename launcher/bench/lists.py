"""`list`: pages of long lists, measured inside the application (see `bench_lists`)."""

from __future__ import annotations

import json

from launcher.bench.figures import Figure
from launcher.bench.run import Run

BAR_MS, MOST_SQL = 100.0, 10
ROWS, QUICK_ROWS = 100_000, 20_000
CASES, QUICK_CASES = 250, 40


def measure(run: Run) -> list[Figure]:
    """The 95th percentile of a page of each list: over all ways to ask for it, and for the slowest page asked again."""
    rows, cases = (QUICK_ROWS, QUICK_CASES) if run.is_quick else (ROWS, CASES)
    measured = json.loads(run.manage("bench_lists", "--rows", str(rows), "--most", str(cases)))
    figures = []
    for prefix, found in measured.items():
        name = "list" if prefix == "instances" else f"list.{prefix}"
        note = f"p50 {found['p50_ms']:.0f} ms, {found['requests']} pages of {rows} rows"
        bare = found["bare_sql_p95_ms"]
        figures.append(Figure(name, found["p95_ms"], "ms", BAR_MS, reference=bare, note=note))
        worst = f"{found['worst_group']}, asked 20 times"
        figures.append(Figure(f"{name}.worst", found["worst_p95_ms"], "ms", BAR_MS, note=worst))
        figures.append(Figure(f"{name}.sql", found["most_sql"], "SQL", MOST_SQL))
    return figures
