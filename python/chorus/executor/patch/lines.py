"""Compares two files line by line in bounded time. Pure.

Lines that stand once in both files are taken as fixed points (Cohen's patience diff); what lies between them
is compared by Myers' algorithm of 1986. Where the budget is used up, all lines between are replaced: the
result is always right, and only longer than it might be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

# Myers' algorithm remembers the square of the number of edits; regions with more are replaced as a whole.
_EDITS_MAX: Final = 1000


class Change(NamedTuple):
    """Old lines that are replaced by new ones; each range ends before its end."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


class Budget:
    """Steps of comparing, each below a microsecond, that are left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def part(self, steps: int) -> Budget:
        """A budget out of this one, of at most so many steps."""
        taken = min(steps, self.steps)
        self.steps -= taken
        return Budget(taken)

    def give_back(self, part: Budget) -> None:
        """Takes what a part did not use."""
        self.steps += max(0, part.steps)

    def spend(self, steps: int) -> bool:
        """Whether so many steps were left."""
        self.steps -= steps
        return self.steps >= 0


def changes(old: Sequence[bytes], new: Sequence[bytes], budget: Budget) -> list[Change]:
    """What turns one file into the other, in order, with at least one equal line between two changes."""
    numbers: dict[bytes, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old]
    b = [numbers.setdefault(line, len(numbers)) for line in new]
    found: list[Change] = []
    todo = [Change(0, len(a), 0, len(b))]
    while todo:
        region = _trimmed(a, b, todo.pop())
        if region.old_start == region.old_end or region.new_start == region.new_end:
            found.append(region)
        elif points := _fixed_points(a, b, region, budget):
            todo += reversed(list(_between(region, points)))
        else:
            found += _shortest(a, b, region, budget)
    return _joined(found)


def _trimmed(a: list[int], b: list[int], region: Change) -> Change:
    i, i_end, j, j_end = region
    while i < i_end and j < j_end and a[i] == b[j]:
        i, j = i + 1, j + 1
    while i < i_end and j < j_end and a[i_end - 1] == b[j_end - 1]:
        i_end, j_end = i_end - 1, j_end - 1
    return Change(i, i_end, j, j_end)


def _fixed_points(a: list[int], b: list[int], region: Change, budget: Budget) -> list[tuple[int, int]]:
    """Places of lines that stand once in both parts, as many as are in the same order in both."""
    if not budget.spend(region.old_end - region.old_start + region.new_end - region.new_start):
        return []
    in_a, in_b = _once(a, region.old_start, region.old_end), _once(b, region.new_start, region.new_end)
    pairs = [(in_a[line], place) for line, place in in_b.items() if line in in_a]
    # The longest row of pairs that rises on both sides; `b`'s places rise already.
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (place, _) in enumerate(pairs):
        at = bisect_left(ends, place)
        before.append(last[at - 1] if at else -1)
        if at == len(ends):
            ends.append(place)
            last.append(number)
        else:
            ends[at], last[at] = place, number
    row: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        row.append(pairs[number])
        number = before[number]
    return row[::-1]


def _once(lines: list[int], start: int, end: int) -> dict[int, int]:
    """The places of the lines that stand once in a part, in order."""
    places: dict[int, int] = {}
    twice: set[int] = set()
    for place in range(start, end):
        if places.setdefault(lines[place], place) != place:
            twice.add(lines[place])
    return {line: place for line, place in places.items() if line not in twice}


def _between(region: Change, points: list[tuple[int, int]]) -> list[Change]:
    edges = [(region.old_start - 1, region.new_start - 1), *points, (region.old_end, region.new_end)]
    return [Change(i + 1, i_end, j + 1, j_end) for (i, j), (i_end, j_end) in pairwise(edges)]


def _shortest(a: list[int], b: list[int], region: Change, budget: Budget) -> list[Change]:
    """The fewest edits, or the whole region when they are too many or the budget ends."""
    first, end, other, other_end = region
    n, m = end - first, other_end - other
    most = min(n + m, _EDITS_MAX)
    # By diagonal (lines of `a` less lines of `b`, from -most on): how far in `a` so many edits lead.
    reach = [0] * (2 * most + 3)
    trace: list[list[int]] = []
    for edits in range(most + 1):
        trace.append(reach[most - edits : most + edits + 3])
        for diagonal in range(-edits, edits + 1, 2):
            at = diagonal + most + 1
            down = diagonal == -edits or (diagonal != edits and reach[at - 1] < reach[at + 1])
            x = reach[at + 1] if down else reach[at - 1] + 1
            y = x - diagonal
            begun = x
            while x < n and y < m and a[first + x] == b[other + y]:
                x, y = x + 1, y + 1
            reach[at] = x
            if not budget.spend(x - begun + 1):
                return [region]
            if x == n and y == m:
                return [
                    Change(i + first, i_end + first, j + other, j_end + other)
                    for i, i_end, j, j_end in _way_back(trace, n, m)
                ]
    return [region]


def _way_back(trace: list[list[int]], n: int, m: int) -> list[Change]:
    """The edits that led to the end, each by itself."""
    found: list[Change] = []
    x, y = n, m
    for edits in range(len(trace) - 1, 0, -1):
        reach = trace[edits]
        at = x - y + edits + 1
        down = x - y == -edits or (x - y != edits and reach[at - 1] < reach[at + 1])
        before = reach[at + 1] if down else reach[at - 1]
        above = before - (x - y + 1 if down else x - y - 1)
        found.append(Change(before, before + (not down), above, above + down))
        x, y = before, above
    return found[::-1]


def _joined(found: list[Change]) -> list[Change]:
    joined: list[Change] = []
    for change in found:
        if change.old_start == change.old_end and change.new_start == change.new_end:
            continue
        if joined and joined[-1].old_end == change.old_start and joined[-1].new_end == change.new_start:
            change = Change(joined[-1].old_start, change.old_end, joined[-1].new_start, change.new_end)
            joined.pop()
        joined.append(change)
    return joined
