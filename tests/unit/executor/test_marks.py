"""Marks are found however the stream is cut, and output is never touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.docker.marks import MARK_BYTES_MAX, Mark, MarkFinder

NONCE = "ab" * 16
MARK = b"\0" + NONCE.encode() + b" end 1 0 2 3\n"


def fed(pieces: list[bytes]) -> tuple[bytes, list[tuple[str, ...]]]:
    finder = MarkFinder(NONCE)
    out, marks = b"", []
    for piece in pieces:
        for found in finder.feed(piece):
            if isinstance(found, Mark):
                marks.append(found.words)
            else:
                out += found
    return out + finder.finish(), marks


@given(
    st.lists(st.binary(max_size=40) | st.just(MARK) | st.just(MARK[:20]), max_size=8),
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
)
def test_any_cut_gives_the_same(parts: list[bytes], sizes: list[int]) -> None:
    whole = b"".join(parts)
    pieces, position, turn = [], 0, 0
    while position < len(whole):
        size = sizes[turn % len(sizes)]
        pieces.append(whole[position : position + size])
        position, turn = position + size, turn + 1
    assert fed(pieces) == fed([whole])


def test_only_what_may_begin_a_mark_is_held_back() -> None:
    finder = MarkFinder(NONCE)
    assert list(finder.feed(b"text\0")) == [b"text"]
    assert list(finder.feed(b"more")) == [b"\0more"]


def test_a_start_without_an_end_is_output() -> None:
    data = b"\0" + NONCE.encode() + b" " + b"x" * MARK_BYTES_MAX * 2
    assert fed([data]) == (data, [])


def test_output_around_a_mark_is_kept() -> None:
    assert fed([b"a" + MARK + b"b"]) == (b"ab", [("end", "1", "0", "2", "3")])
