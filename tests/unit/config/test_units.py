"""Sizes, durations and switches as operators write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.config import units

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100MB", 100 * MIB),
        ("2GB", 2048 * MIB),
        ("1MiB", MIB),
        ("512k", 512 << 10),
        ("7", 7),
        ("1.5 MB", 3 * MIB // 2),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1XB", "1 0MB", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("100ms", 0.1), ("24h", 86_400), ("30d", 2_592_000), ("1h30m", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "5 minutes", "5s x", "x5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration, units.parse_switch):
        with contextlib.suppress(ValueError):
            parse(text)
