"""`idle` and `creates`: what a thousand simulated hosts cost at rest, and how fast instances are made on them."""

from __future__ import annotations

import time

from launcher import load
from launcher.bench.figures import Figure
from launcher.bench.run import Run

HOSTS, QUICK_HOSTS = 1000, 100
CREATES, QUICK_CREATES = 10_000, 500
CLIENTS, EACH = 4, 10
DEADLINE_S = 1800
BAR_PER_S, BAR_PERCENT = 10.0, 25.0
SETTLE_S, WATCH_S = 30, 60
CONTROL = ("web", "worker", "worker-ssh", "beat", "redis", "postgres")


def idle(run: Run) -> list[Figure]:
    """Percent of a core that control spends on connected agents that have nothing to do."""
    hosts = _simulate(run)
    run.say(f"idle: {SETTLE_S} s for what their coming set off to be over, {WATCH_S} s to look")
    time.sleep(SETTLE_S)
    usage = load.Usage(run.cloud)
    time.sleep(WATCH_S)
    shares = {name: 100 * share for name, share in usage.per_process().items() if name in CONTROL}
    note = f"{hosts} agents: " + ", ".join(f"{name} {share:.1f}" for name, share in shares.items())
    return [Figure("idle", sum(shares.values()), "% of a core", BAR_PERCENT, note=note)]


def creates(run: Run) -> list[Figure]:
    """Instances made a second, from the first request to the last that runs; none lost, and the books in order."""
    hosts, wanted = _simulate(run), QUICK_CREATES if run.is_quick else CREATES
    try:
        made = load.create(run.cloud, wanted, clients=CLIENTS, each=EACH, deadline_s=DEADLINE_S)
        wrong = load.ledger(run.cloud)
    finally:
        run.say("creates: removing what was made")
        load.remove(run.cloud, clients=CLIENTS, deadline_s=DEADLINE_S)
    note = f"{wanted} over {hosts} hosts in {made.seconds:.0f} s from {CLIENTS} clients"
    refused = ", ".join(f"{code} {count}" for code, count in made.refused.items())
    return [
        Figure("creates", made.per_second, "/s", BAR_PER_S, is_more_better=True, note=note),
        Figure("creates.missing", wanted - made.done, "instances", 0, note=refused),
        Figure("creates.wrong", len(wrong), "in the books", 0, note="; ".join(wrong[:3])),
    ]


def _simulate(run: Run) -> int:
    hosts = QUICK_HOSTS if run.is_quick else HOSTS
    run.simulate(hosts)
    return hosts
