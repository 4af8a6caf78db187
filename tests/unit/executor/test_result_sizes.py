"""A result fits its entry whatever its texts are, as sizes are those of the encoded entry."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor import summary
from chorus.executor.summary import Facts
from chorus.table.entries import Result

ENTRY_MAX_BYTES = 256 * 1024
ITEM: dict[str, Any] = {"path": "a", "size": 1, "sha256": "0" * 64, "mode": "0644"}


@given(st.text(max_size=200), st.integers(4, 300))
def test_a_text_is_cut_to_its_encoded_bytes_and_no_further(text: str, most: int) -> None:
    cut = summary.shorten(text, most + 3)
    assert summary.encoded_bytes(cut) <= most + 3
    if cut != text:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        # One character more would not have fitted.
        assert summary.encoded_bytes(text[: len(cut)] + "…") > most + 3


def test_half_a_surrogate_pair_breaks_nothing() -> None:
    assert summary.shorten("a\udcff", 100) == "a?"


def test_the_largest_result_fits_an_entry() -> None:
    """A control character takes six bytes."""
    text = "\x01" * 16_000
    ended = [{"command": text, "exit_code": 2**31, "duration_s": 604_800.123} for _ in range(64)]
    facts = Facts(ended, 64, exit_code=1, note=text, running_s=1e9)
    path = "é" * 120
    items = [{**ITEM, "path": path, "size": 2**53} for _ in range(1000)]
    while not summary.fits_entry(items, []):
        items.pop()
    assert len(items) > 100
    body = {
        "task_id": "0" * 26, "attempt": 100, "outcome": "failed", "exit_code": 1, "ended_by": "exit",
        "reason": summary.shorten_reason(summary.reason(facts)),
        "summary": summary.shorten_summary(summary.compose(facts)),
        "commands": summary.shorten_commands(ended),
        "artifacts": items, "left_out": [],
        "usage": {f"{n}".rjust(40, "u"): 2**53 for n in range(8)},
        "timings": {"running_s": 1.0, "pulling_s": 1.0},
        "decision": "d" * 1024, "context": ["c" * 1024] * 16,
    }  # fmt: skip
    Result.model_validate(body)
    # The envelope around it takes no more than this.
    assert len(orjson.dumps(body)) < ENTRY_MAX_BYTES - 16 * 1024


def test_lists_that_an_entry_does_not_take() -> None:
    left_out = {"path": "a", "reason": "b"}
    assert summary.fits_entry([ITEM] * 400, [left_out] * 100)
    assert not summary.fits_entry([ITEM] * 400, [left_out] * 101)
    assert not summary.fits_entry([ITEM] * 1001, [])
    assert not summary.fits_entry([{**ITEM, "path": "\x01" * 4096}] * 3, [])


def test_a_summary_says_how_it_ended_and_what_is_left() -> None:
    ended = [{"command": "make", "exit_code": 0, "duration_s": 1.0}]
    good = Facts(ended, 1, exit_code=0, running_s=1.25, artifacts=2, output={"stdout": 10, "stderr": 5})
    assert summary.compose(good) == "The command succeeded in 1.2 s. 15 bytes of output. 2 artifacts kept."
    bad = Facts(ended, 2, exit_code=3)
    assert summary.compose(bad) == "Command 1 of 2 exited with 3. Last command: make"
