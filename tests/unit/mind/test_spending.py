"""Prices and the money of a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.mind.accounting import Accounts
from chorus.mind.thinking import ModelRefused

DAY_S = 86_400.0
PRICES = {"m": (2.0, 10.0)}


class Clock:
    def __init__(self) -> None:
        self.now = 20_000 * DAY_S

    def __call__(self) -> float:
        return self.now


def accounts(path: Path, daily_usd: float | None = 1.0, clock: Clock | None = None) -> Accounts:
    return Accounts(path / "spending.json", PRICES, daily_usd, clock or Clock())


def test_a_call_costs_what_it_took(tmp_path: Path) -> None:
    made = accounts(tmp_path)
    assert made.price("m", 500_000, 100_000) == 2.0
    assert made.price("other", 1, 1) is None
    with made.charge("m", 100_000) as charge:
        assert made.spent_usd == pytest.approx(0.2)
        charge.usd = 0.5
    assert made.spent_usd == pytest.approx(0.5)
    with made.charge("other", 10**9) as charge:
        assert charge.usd is None
    assert made.spent_usd == pytest.approx(0.5)


def test_the_day_s_money_ends_outlives_a_restart_and_comes_back_at_midnight(tmp_path: Path) -> None:
    clock = Clock()
    with accounts(tmp_path, clock=clock).charge("m", 1) as charge:
        charge.usd = 1.0
    again = accounts(tmp_path, clock=clock)
    with pytest.raises(ModelRefused, match=r"1\.0000 USD .* CHORUS_AI_DAILY_USD \(1\)"), again.charge("m", 1):
        pass
    with again.charge("other", 1):
        pass
    clock.now -= DAY_S
    with pytest.raises(ModelRefused), again.charge("m", 1):
        pass
    clock.now += 2 * DAY_S
    with again.charge("m", 1) as charge:
        charge.usd = 0.0
    assert again.spent_usd == 0


def test_no_goal_is_begun_when_the_day_s_money_is_nearly_spent(tmp_path: Path) -> None:
    made = accounts(tmp_path)
    assert not made.exhausted("m")
    with made.charge("m", 1) as charge:
        charge.usd = 0.96
    assert made.exhausted("m")
    assert not made.exhausted("other")


def test_a_call_that_was_killed_half_way_is_counted(tmp_path: Path) -> None:
    made = accounts(tmp_path)
    with made.charge("m", 100_000):
        # As the process would find it after a kill here.
        assert accounts(tmp_path).spent_usd == pytest.approx(0.2)


def test_what_failed_on_the_way_is_counted_as_it_says(tmp_path: Path) -> None:
    made = accounts(tmp_path)

    def fail() -> None:
        with made.charge("m", 100_000) as charge:
            charge.usd = 0.0
            raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        fail()
    assert made.spent_usd == 0


def test_a_disk_that_takes_nothing_makes_no_call_free(tmp_path: Path) -> None:
    made = Accounts(tmp_path / "away" / "spending.json", PRICES, None, Clock())
    with pytest.raises(ModelRefused, match="cannot be written"), made.charge("m", 1):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"usd": "much"}', b'{"usd": -1}', b"\xff", b'{"usd": NaN}']
)
def test_a_damaged_file_is_no_new_money(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spending.json").write_bytes(content)
    with pytest.raises(ModelRefused), accounts(tmp_path).charge("m", 1):
        pass
    with accounts(tmp_path, daily_usd=None).charge("m", 1):
        pass
