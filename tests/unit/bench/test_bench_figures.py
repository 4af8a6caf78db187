"""Which targets a measured amount has reached."""

from __future__ import annotations

import pytest

from bench.figures import Amounts, amounts_table


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Amounts("alone", "s", [2, 1, 3], 2), True),
        (Amounts("alone", "s", [2, 3, 4], 2), False),
        (Amounts("alone", "MB/s", [300], 300, at_least=True), True),
        (Amounts("beside", "1/s", [20], 2, at_least=True, peer=[10]), True),
        (Amounts("beside", "1/s", [19], 2, at_least=True, peer=[10]), False),
        (Amounts("shown", "MB/s", [300], 300, at_least=True, peer=[3000], shown=True), True),
        (Amounts("shown", "MB/s", [299], 300, at_least=True, peer=[1], shown=True), False),
    ],
)
def test_the_target_is_of_the_median_or_of_the_ratio(row: Amounts, reached: bool) -> None:
    assert row.reached is reached
    assert row.as_json()["reached"] is reached


def test_the_table_says_which_target_is_no_ratio() -> None:
    ratio = Amounts("burst", "1/s", [20], 2, at_least=True, peer_name="go", peer=[10])
    shown = Amounts("bulk", "MB/s", [400], 300, at_least=True, peer_name="TCP", peer=[4000], shown=True)
    lines = amounts_table([ratio, shown]).splitlines()
    assert lines[1].split()[-3:] == ["2.00", "≥", "2"]
    assert lines[3].split()[-4:] == ["0.10", "≥", "300", "MB/s"]
