"""`./mica bench`: which figures there are, and measuring them one after the other on the instance's own cloud."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.bench import create, lists, resume, simulated
from launcher.bench.figures import Figure, header, line
from launcher.bench.run import Run
from launcher.errors import Refusal


@dataclass(frozen=True)
class Bench:
    """Figures that are measured together; `takes` is about how long, in full and in short."""

    name: str
    measure: Callable[[Run], list[Figure]]
    takes: str


BENCHES = (
    Bench("list", lists.measure, "9 min, --quick 2"),
    Bench("create", create.measure, "4 min, --quick 1"),
    Bench("resume", resume.measure, "4 min, --quick 1"),
    Bench("idle", simulated.idle, "4 min, --quick 2"),
    Bench("creates", simulated.creates, "30 min, --quick 3"),
)


def chosen(names: Sequence[str]) -> list[Bench]:
    """The benchmarks of these names, all without any. Raises Refusal for a name that is none."""
    known = {bench.name: bench for bench in BENCHES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Refusal(f"There is no benchmark {', '.join(unknown)}", f"There are: {', '.join(known)}.")
    return [bench for bench in BENCHES if not names or bench.name in names]


def measure(benches: Sequence[Bench], run: Run, *, is_json: bool = False) -> bool:
    """Measure them and print a line a figure on standard output; True when none is short of its bar."""
    if not is_json:
        print(header(), flush=True)
    figures: list[Figure] = []
    with run.undo:
        for bench in benches:
            run.say(f"{bench.name}: about {bench.takes} min")
            started = time.monotonic()
            for figure in bench.measure(run):
                figures.append(figure)
                if not is_json:
                    print(line(figure), flush=True)
            run.say(f"{bench.name}: took {time.monotonic() - started:.0f} s")
    if is_json:
        json.dump([figure.document() for figure in figures], sys.stdout, indent=2)
        print()
    return all(figure.is_ok for figure in figures)
