"""A figure: what was measured, what it is held against, and whether that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

WIDTHS = {"name": 22, "measured": 14, "reference": 14, "ratio": 7, "bar": 16}


@dataclass(frozen=True)
class Figure:
    """One line of `./mica bench`. `bar` is the most that `measured` may be; the least where `is_more_better`.

    `reference` is what the same costs without us in the same run, None where there is no such thing.
    """

    name: str
    measured: float
    unit: str
    bar: float
    reference: float | None = None
    is_more_better: bool = False
    note: str = ""

    @property
    def is_ok(self) -> bool:
        return self.measured >= self.bar if self.is_more_better else self.measured <= self.bar

    @property
    def ratio(self) -> float | None:
        return self.measured / self.reference if self.reference else None

    def document(self) -> dict[str, object]:
        """As `--json` shows it."""
        return {**asdict(self), "ratio": self.ratio, "is_ok": self.is_ok}


def header() -> str:
    return "".join(f"{name:<{width}}" for name, width in WIDTHS.items()) + "ok"


def line(figure: Figure) -> str:
    """The figure's line of the table, its note behind."""
    cells = {
        "name": figure.name,
        "measured": f"{_number(figure.measured)} {figure.unit}",
        "reference": "-" if figure.reference is None else f"{_number(figure.reference)} {figure.unit}",
        "ratio": "-" if figure.ratio is None else f"{figure.ratio:.2f}",
        "bar": f"{'≥' if figure.is_more_better else '≤'} {_number(figure.bar)} {figure.unit}",
    }
    said = "ok" if figure.is_ok else "SHORT"
    # At least a space between two cells, however long one grows.
    row = "".join(f"{text:<{WIDTHS[name] - 1}} " for name, text in cells.items())
    return f"{row}{said:<6} {figure.note}".rstrip()


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
