"""Sets of half-open intervals of whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Intervals:
    """Always sorted, never touching."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans: list[tuple[int, int]] = []
        for start, end in sorted(span for span in spans if span[0] < span[1]):
            if self._spans and start <= self._spans[-1][1]:
                self._spans[-1] = (self._spans[-1][0], max(end, self._spans[-1][1]))
            else:
                self._spans.append((start, end))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)

    def __contains__(self, number: int) -> bool:
        return any(start <= number < end for start, end in self._spans)

    def __or__(self, other: Intervals) -> Intervals:
        return Intervals([*self, *other])

    def __and__(self, other: Intervals) -> Intervals:
        return Intervals((max(a, c), min(b, d)) for a, b in self for c, d in other)

    def __len__(self) -> int:
        return sum(end - start for start, end in self._spans)
