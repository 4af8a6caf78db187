"""What models cost: prices, and the money of a day, which is on the disk before a call that may cost any."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, Field, ValidationError

from chorus.config.files import write_private
from chorus.mind.thinking import ModelRefused
from chorus.wire.schema import Schema

TOKENS_PER_PRICE: Final = 1_000_000
# Of the day's money; what is left then is for goals that run.
SPENT_SHARE: Final = 0.95
_DAY_S: Final = 86_400


class _Day(Schema):
    """The file: a day (UTC, counted from the epoch) and what was spent on it."""

    model_config = ConfigDict(extra="ignore")

    day: int = 0
    usd: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)


class Charge:
    """One call's money: what it may cost is counted before it begins, what it did cost when it is over."""

    def __init__(self, usd: float | None) -> None:
        # None: the model has no price.
        self.usd = usd


class Accounts:
    """Prices and spending of this agent. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        path: Path,
        prices: Mapping[str, tuple[float, float]],
        daily_usd: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._prices = prices
        self._daily_usd = daily_usd
        self._clock = clock
        self._spent = self._read()

    def price(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """USD for so many tokens; None for a model without a price."""
        if (price := self._prices.get(model)) is None:
            return None
        return (tokens_in * price[0] + tokens_out * price[1]) / TOKENS_PER_PRICE

    @property
    def spent_usd(self) -> float:
        """Of today."""
        self._turn_day()
        return self._spent.usd

    def exhausted(self, model: str) -> bool:
        """Whether today has no money left to begin a goal with, at a model that costs any."""
        if self._daily_usd is None or model not in self._prices:
            return False
        return self.spent_usd >= SPENT_SHARE * self._daily_usd

    @contextlib.contextmanager
    def charge(self, model: str, tokens_in: int) -> Iterator[Charge]:
        """Around a call: counts what its question costs, and at the end what `Charge.usd` then says.

        So a call that is killed half way is counted too. Raises ModelRefused when the day's money is spent or
        cannot be counted; a model without a price costs nothing.
        """
        estimate = self.price(model, tokens_in, 0)
        charge = Charge(estimate)
        if estimate is None:
            yield charge
            return
        spent = self.spent_usd
        if self._daily_usd is not None and spent + estimate > self._daily_usd:
            raise ModelRefused(
                f"{spent:.4f} USD of today's CHORUS_AI_DAILY_USD ({self._daily_usd:g}) are spent, and the "
                f"next call would cost {estimate:.4f} at least; it goes on at midnight UTC",
                lasting=False,
            )
        try:
            self._add(estimate)
        except OSError as error:
            said = f"what a call costs cannot be written to {self._path}: {error}"
            raise ModelRefused(said, lasting=False) from None
        try:
            yield charge
        finally:
            # A full disk now costs the difference, not the answer.
            with contextlib.suppress(OSError):
                self._add((charge.usd or 0.0) - estimate)

    def _add(self, usd: float) -> None:
        self._turn_day()
        spent = _Day(day=self._spent.day, usd=max(0.0, self._spent.usd + usd))
        # In memory first: a disk that does not take it must not make it free.
        self._spent = spent
        write_private(self._path, spent.model_dump_json() + "\n")

    def _turn_day(self) -> None:
        today = int(self._clock() // _DAY_S)
        # A clock that was set back does not give the money of a day twice.
        if today > self._spent.day:
            self._spent = _Day(day=today)

    def _read(self) -> _Day:
        try:
            return _Day.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Day()
        except (OSError, ValidationError):
            # Not readable: as if all were spent where there is a limit, until the next day.
            return _Day(day=int(self._clock() // _DAY_S), usd=self._daily_usd or 0.0)
