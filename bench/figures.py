"""Figures out of many single times, and the table of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median_high
from typing import Any


@dataclass(frozen=True, slots=True)
class Figures:
    """Times of one thing, in microseconds."""

    name: str
    count: int
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measurement of ours beside its peer's; `target` is the largest ratio of medians that is wanted."""

    what: str
    ours: Figures
    peer: Figures
    target: float
    # What else was seen, in a sentence.
    note: str = ""

    @property
    def ratio(self) -> float:
        """Our median over the peer's."""
        return self.ours.p50 / self.peer.p50

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return {**asdict(self), "ratio": self.ratio, "reached": self.ratio <= self.target}


@dataclass(frozen=True, slots=True)
class Amounts:
    """Something measured several times in a unit of its own.

    `target` is the largest median that is wanted, with `at_least` the smallest. With a peer, measured in the
    same run, it is a ratio instead: our median over the peer's. With a peer that is `shown` alone it is not.
    """

    what: str
    unit: str
    values: Sequence[float]
    target: float
    at_least: bool = False
    peer_name: str = ""
    peer: Sequence[float] = ()
    # The peer tells what the machine can do: the target is no ratio to it.
    shown: bool = False
    # What else was seen, in a sentence.
    note: str = ""

    @property
    def median(self) -> float:
        """The one in the middle, the upper of two."""
        return median_high(self.values)

    @property
    def ratio(self) -> float | None:
        """Our median over the peer's; None without a peer."""
        return self.median / median_high(self.peer) if self.peer else None

    @property
    def reached(self) -> bool:
        """Whether the target is."""
        held = self.median if self.ratio is None or self.shown else self.ratio
        return held >= self.target if self.at_least else held <= self.target

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return {**asdict(self), "median": self.median, "ratio": self.ratio, "reached": self.reached}


Row = Comparison | Amounts


def figures(name: str, taken: Sequence[float]) -> Figures:
    """The median and the tail of `taken`, microseconds each."""
    ordered = sorted(taken)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    return Figures(name, len(ordered), at(0.5), at(0.9), at(0.99), ordered[-1])


def table(rows: Sequence[Comparison]) -> str:
    """All comparisons, as text."""
    lines: list[tuple[str, ...]] = [("what", "who", "n", "p50", "p90", "p99", "most", "ratio", "target")]
    for row in rows:
        for one, ratio, target in ((row.ours, f"{row.ratio:.2f}", f"≤ {row.target:g}"), (row.peer, "", "")):
            times = [time_text(value) for value in (one.p50, one.p90, one.p99, one.most)]
            lines.append(
                (row.what if one is row.ours else "", one.name, str(one.count), *times, ratio, target)
            )
    return "\n".join([aligned(lines, left=2), *(f"\n{row.what}: {row.note}" for row in rows if row.note)])


def amounts_table(rows: Sequence[Amounts]) -> str:
    """All amounts, as text."""
    lines: list[tuple[str, ...]] = [
        ("what", "who", "unit", "n", "least", "median", "most", "ratio", "target")
    ]
    for row in rows:
        wanted = f"{'≥' if row.at_least else '≤'} {row.target:g}{f' {row.unit}' if row.shown else ''}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append((row.what, "chorus", row.unit, *_spread(row.values), ratio, wanted))
        if row.peer:
            lines.append(("", row.peer_name, row.unit, *_spread(row.peer), "", ""))
    return "\n".join([aligned(lines, left=3), *(f"\n{row.what}: {row.note}" for row in rows if row.note)])


def _spread(values: Sequence[float]) -> list[str]:
    return [str(len(values)), *map(amount_text, (min(values), median_high(values), max(values)))]


def amount_text(value: float) -> str:
    """For people."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """The first `left` columns begin together, the others end together."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def time_text(microseconds: float) -> str:
    """For people, in milliseconds where there are some."""
    if microseconds >= 1000:
        return f"{microseconds / 1000:.2f} ms"
    return f"{microseconds:.0f} µs" if microseconds >= 10 else f"{microseconds:.2f} µs"
