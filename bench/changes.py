"""What changed between two files of bench/run, row by row. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from bench.figures import aligned, amount_text, time_text

NOTHING = "—"


class ForeignFileError(ValueError):
    """The text is not what bench/run writes; the message says where and why."""


class _Part(BaseModel):
    # A file has more than is compared, and a later one may have more still.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Times(_Part):
    name: str
    p50: FiniteFloat


class _Comparison(_Part):
    what: str
    ours: _Times
    peer: _Times
    ratio: FiniteFloat


class _Amounts(_Part):
    what: str
    unit: str
    median: FiniteFloat
    peer_name: str = ""
    ratio: FiniteFloat | None = None


class Run(_Part):
    """One run of the bench, as its file has it."""

    at: str
    machine: str
    unit: Literal["microseconds"]
    rows: tuple[_Comparison, ...]
    amounts: tuple[_Amounts, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """What a comparison and an amount have in common. `unit` is empty for times, in microseconds."""

    unit: str
    peer: str
    median: float
    ratio: float | None

    @property
    def text(self) -> str:
        return f"{amount_text(self.median)} {self.unit}" if self.unit else time_text(self.median)


# What was measured, its unit, and which of several rows of that name it is: one for each peer.
_Key = tuple[str, str, int]


def read(text: str | bytes) -> Run:
    """Reads a file's content; raises ForeignFileError."""
    try:
        return Run.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole of it"
        raise ForeignFileError(f"{place}: {first['msg']}") from None


def changes(before: Run, after: Run) -> str:
    """The table of all rows that both have, and the names of those that one alone has."""
    old, new = _rows(before), _rows(after)
    names = Counter(what for what, _, _ in {**old, **new})
    lines = [("what", "before", "after", "change", "ratio before", "ratio after")]
    for key, was in old.items():
        if (now := new.get(key)) is None:
            continue
        name = _name(key, now, names)
        lines.append((name, was.text, now.text, _change(was, now), _ratio(was), _ratio(now)))
    parts = [aligned(lines, left=1)] if len(lines) > 1 else ["no row is in both"]
    for place, rows, others in (("before", old, new), ("after", new, old)):
        if alone := [_name(key, row, names) for key, row in rows.items() if key not in others]:
            parts.append("\n".join((f"only {place}:", *(f"  {name}" for name in alone))))
    if before.machine != after.machine:
        parts.append(
            f"The machines differ: {before.machine} before, {after.machine} after. Compare the ratios."
        )
    return "\n\n".join(parts)


def _rows(run: Run) -> dict[_Key, _Row]:
    found: dict[_Key, _Row] = {}
    counted = Counter[tuple[str, str]]()
    for what, row in _each(run):
        counted[what, row.unit] += 1
        found[what, row.unit, counted[what, row.unit]] = row
    return found


def _each(run: Run) -> Sequence[tuple[str, _Row]]:
    times = [(row.what, _Row("", row.peer.name, row.ours.p50, row.ratio)) for row in run.rows]
    amounts = [(row.what, _Row(row.unit, row.peer_name, row.median, row.ratio)) for row in run.amounts]
    return times + amounts


def _name(key: _Key, row: _Row, names: Counter[str]) -> str:
    # A peer's name may hold a figure of its own: it is told only where it is needed.
    return f"{key[0]}, beside {row.peer}" if names[key[0]] > 1 and row.peer else key[0]


def _change(was: _Row, now: _Row) -> str:
    return f"{100 * (now.median - was.median) / was.median:+.1f} %" if was.median else NOTHING


def _ratio(row: _Row) -> str:
    return NOTHING if row.ratio is None else f"{row.ratio:.2f}"
