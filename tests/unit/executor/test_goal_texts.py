"""What a model is shown, and how a passage is replaced: whatever the texts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.goal import texts
from chorus.executor.goal.texts import EditRefused, HeadAndTail, edited

# Few signs, so that passages repeat and overlap.
SMALL = st.text(alphabet="ab\n é", max_size=40)


@given(SMALL, SMALL, SMALL, SMALL)
def test_a_passage_that_stands_once_is_replaced_and_nothing_else(
    before: str, old: str, after: str, new: str
) -> None:
    content = before + old + after
    places = [at for at in range(len(content)) if old and content.startswith(old, at)]
    if old and old != new and len(places) == 1:
        assert edited(content, old, new) == before + new + after
    else:
        with pytest.raises(EditRefused):
            edited(content, old, new)


@given(st.lists(SMALL, min_size=3, max_size=6), st.text(alphabet="ab\n", min_size=1, max_size=3))
def test_several_matches_are_counted_and_their_lines_named(parts: list[str], old: str) -> None:
    content = old.join(parts)
    places = [at for at in range(len(content)) if content.startswith(old, at)]
    lines = [str(content[:at].count("\n") + 1) for at in places[:20]]
    with pytest.raises(EditRefused, match=rf"^{len(places)} matches, in lines {', '.join(lines)}"):
        edited(content, old, "new")


def test_what_only_spaces_tell_apart_is_pointed_at() -> None:
    with pytest.raises(EditRefused, match=r"no match: .* in line 2: spaces count"):
        edited("if x:\n\tgo()\n", "    go()\n", "stop()\n")


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 60))
def test_an_output_is_the_same_in_whatever_pieces_it_comes(pieces: list[bytes], size: int) -> None:
    whole = b"".join(pieces)
    one, many, cut = HeadAndTail(), HeadAndTail(), HeadAndTail()
    one.add(whole)
    for piece in pieces:
        many.add(piece)
    for start in range(0, len(whole), size):
        cut.add(whole[start : start + size])
    assert one.text() == many.text() == cut.text() == (whole.decode("utf-8", "replace"), True)


@pytest.mark.parametrize("sign", ["x", "é", "😀"])
@pytest.mark.parametrize("count", [20_000, 20_001, 50_000, 1_000_000])
def test_a_long_output_keeps_its_ends_and_says_where_the_whole_is(sign: str, count: int) -> None:
    kept = HeadAndTail()
    data = (sign * count).encode()
    for start in range(0, len(data), 4097):
        kept.add(data[start : start + 4097])
    text, whole = kept.text("/tmp/.chorus/1")
    if count <= texts.SHOWN_CHARS:
        assert (text, whole) == (sign * count, True)
        return
    head, said, tail = text.split("\n")
    assert (head, tail, whole) == (sign * 10_000, sign * 10_000, False)
    assert said.endswith("left out; the whole is in /tmp/.chorus/1 …]")


def test_lines_are_numbered_and_it_is_said_how_to_read_on() -> None:
    content = "".join(f"line {number}\n" for number in range(9, 5_000))
    shown = texts.numbered(content, 9, 4_999)
    assert shown.startswith("   9\tline 9\n  10\tline 10\n")
    last = int(shown.rpartition("\n")[2].split(" to ")[1].split(" ")[0])
    assert shown.endswith(f"\n[lines 9 to {last} of 4999; read on with first={last + 1}]")
    assert len(shown) <= texts.SHOWN_CHARS
    assert texts.numbered("", 1, 0) == "[the file has 0 lines]"


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("key = [REDACTED:aws-key]\n", "[REDACTED:aws-key]"),
        ("[REDACTED:]", ""),
        ("[REDACTED\n:x]", ""),
        ("nothing", ""),
    ],
)
def test_a_redaction_mark_is_found(text: str, mark: str) -> None:
    assert texts.holds_mark(text) == mark
