"""The agent's models together: tries again, leaves a failing provider alone, goes on with the second one, and
counts what all that took. The one implementation of `Thinking`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from chorus.config import AiSettings
from chorus.mind import backoff
from chorus.mind.accounting import Accounts
from chorus.mind.breaker import Breaker
from chorus.mind.kept_calls import KeptCalls
from chorus.mind.outgoing import Redact, redacted
from chorus.mind.providers.failures import Failed, Garbled, NoTools
from chorus.mind.providers.provider import Answer, Provider
from chorus.mind.rate import RESETDATA_CALLS_PER_MINUTE, Share
from chorus.mind.thinking import ModelAway, ModelRefused, ModelTooLong, Reply, ToolSpec, Turn
from chorus.process import metrics

# Source code and prose have about four bytes a token, other scripts fewer. Of digits each is one, with most
# models: a dump in hexadecimal is far longer for them than it looks.
BYTES_PER_TOKEN: Final = 3
_DIGITS: Final = b"0123456789"

OnText = Callable[[str], None]


class _Side:
    """A provider with what is kept of its past."""

    def __init__(self, provider: Provider, kept: KeptCalls | None) -> None:
        self.provider = provider
        self.breaker = Breaker()
        self.share: Share | None = None
        self._kept = kept
        if provider.name == "resetdata":
            now = monotonic()
            ages = [] if kept is None else kept.ages()
            self.share = Share(RESETDATA_CALLS_PER_MINUTE, [now - age for age in ages])

    def take_share(self) -> None:
        """A call is made that counts for the limit."""
        if self.share is not None:
            self.share.take(monotonic())
            if self._kept is not None:
                now = monotonic()
                self._kept.write([now - call for call in self.share.calls])

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.provider.name} ({self.provider.model})"


class Models:
    """The models of one agent. `sharing` tells how many agents share a limit of calls, this one included;
    `redact` cuts secrets out of what is asked. `kept` has the calls of an earlier life that count for the
    limit.
    """

    def __init__(
        self,
        ai: AiSettings,
        accounts: Accounts,
        sharing: Callable[[], int] = lambda: 1,
        redact: Redact = bytes,
        chance: Callable[[], float] = random.random,
        kept: KeptCalls | None = None,
    ) -> None:
        self._ai = ai
        self.accounts = accounts
        self._sharing = sharing
        self._redact = redact
        self._chance = chance
        self._sides = [_Side(Provider(name, ai), kept) for name in ai.providers if name != "none"]

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The first choice first."""
        return tuple(side.provider for side in self._sides)

    def window(self) -> int:
        """The smallest of their windows: a conversation may move from one to the other."""
        return min(provider.window for provider in self.providers)

    def count(self, text: str) -> int:
        """How many tokens the text has, rather too many than too few."""
        data = text.encode("utf-8", "replace")
        other = len(data.translate(None, _DIGITS))
        return len(data) - other + other // BYTES_PER_TOKEN + 1

    def calls_tools(self) -> bool:
        """Whether the first choice calls tools by itself."""
        return self.providers[0].calls_tools

    async def look(self) -> None:
        """Finds out which models are there. Raises nothing."""
        await asyncio.gather(*map(self._look, self._sides))

    async def close(self) -> None:
        """Ends all connections."""
        await asyncio.gather(*(provider.close() for provider in self.providers))

    async def ask(
        self,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        *,
        deadline_s: float,
        local_only: bool = False,
        on_text: OnText | None = None,
    ) -> Reply:
        """One reply, of the first provider that gives one. Raises ModelAway, ModelTooLong and ModelRefused,
        which name each provider and why it gave none.
        """
        deadline = monotonic() + deadline_s
        reasons, away, too_long, lasting = list[str](), False, False, True
        turns = redacted(turns, self._redact)
        for side in self._sides:
            try:
                return await self._ask(side, turns, tools, deadline, local_only, on_text)
            except ModelAway as error:
                away = True
                reasons.append(f"{side.label}: {error.reason}")
            except ModelRefused as error:
                too_long = too_long or isinstance(error, ModelTooLong)
                lasting = lasting and error.lasting
                reasons.append(f"{side.label}: {error.reason}")
        said = "; ".join(reasons)
        if too_long:
            # Whatever the others said: this can be mended at once.
            raise ModelTooLong(said)
        raise ModelAway(said) if away else ModelRefused(said, lasting=lasting)

    async def _ask(
        self,
        side: _Side,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        deadline: float,
        local_only: bool,
        on_text: OnText | None,
    ) -> Reply:
        """One reply of one provider, after as many tries as it takes and time allows."""
        failures = 0
        while True:
            if (wait := side.breaker.wait_s(monotonic())) > 0:
                raise ModelAway(f"it failed and is left alone for {wait:.0f} s: {side.provider.detail}")
            await self._wait_for_share(side, deadline)
            try:
                reply = await self._once(side, turns, tools, deadline, local_only, on_text)
            except NoTools:
                continue  # it is asked again through text, which is a call like any other
            except (Failed, Garbled) as error:
                failures += 1
                wait_s = self._after_failure(side, error, failures)
                if wait_s is None or monotonic() + wait_s >= deadline:
                    if isinstance(error, Garbled):
                        raise ModelRefused(f"its answers cannot be read: {error}") from None
                    raise
                await asyncio.sleep(wait_s)
            else:
                self._set_breaker(side, side.breaker.succeeded())
                side.provider.told("")
                return reply

    def _after_failure(self, side: _Side, error: Failed | Garbled, failures: int) -> float | None:
        """Keeps it; how long to wait before the next try, or None: no more."""
        again, asked_s = (error.again, error.retry_after_s) if isinstance(error, Failed) else (True, None)
        side.provider.told(str(error))
        self._set_breaker(side, side.breaker.failed(monotonic(), asked_s))
        _count(side, "failed")
        return backoff.wait_s(failures, self._chance(), asked_s) if again else None

    async def _once(
        self,
        side: _Side,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        deadline: float,
        local_only: bool,
        on_text: OnText | None,
    ) -> Reply:
        """One try, within one call's time and the deadline.

        Raises Failed, Garbled, NoTools and ModelRefused.
        """
        provider = side.provider
        estimate = sum(self.count(turn.text) for turn in turns)
        received = 0

        def on_piece(text: str) -> None:
            nonlocal received
            received += self.count(text)
            if on_text is not None:
                on_text(text)

        begun = monotonic()
        limit_s = min(self._ai.timeout_s, deadline - begun)
        with self.accounts.charge(provider.model, estimate) as charge:
            try:
                async with asyncio.timeout(max(0.0, limit_s)):
                    answer = await provider.ask(turns, tools, local_only=local_only, on_text=on_piece)
            except TimeoutError:
                charge.usd = self.accounts.price(provider.model, estimate, received)
                raise Failed(f"no whole answer within {max(0.0, limit_s):.0f} s", again=False) from None
            except (Failed, Garbled, NoTools, ModelRefused):
                # Who answers with an error has not thought about the question; what came before it counts.
                charge.usd = self.accounts.price(provider.model, estimate, received) if received else 0.0
                raise
            tokens_in, tokens_out = answer.tokens_in or estimate, answer.tokens_out or received
            charge.usd = self.accounts.price(provider.model, tokens_in, tokens_out)
        reply = _reply(provider, answer, tokens_in, tokens_out, monotonic() - begun, charge.usd)
        _measure(reply)
        return reply

    async def _wait_for_share(self, side: _Side, deadline: float) -> None:
        """Until a call may be made under the provider's limit for the mesh; counts it. Raises ModelAway."""
        if side.share is None:
            return
        while (wait := side.share.wait_s(monotonic(), self._sharing())) > 0:
            if monotonic() + wait >= deadline:
                raise ModelAway(
                    f"its {RESETDATA_CALLS_PER_MINUTE} calls a minute are shared by {self._sharing()} "
                    f"agents, and this one's next is in {wait:.0f} s"
                )
            await asyncio.sleep(wait)
        side.take_share()

    async def _look(self, side: _Side) -> None:
        if side.breaker.wait_s(monotonic()) > 0:
            return
        if side.share is not None:
            if side.share.wait_s(monotonic(), self._sharing()) > 0:
                return  # it is asked enough
            side.take_share()
        await side.provider.look()

    def _set_breaker(self, side: _Side, breaker: Breaker) -> None:
        side.breaker = breaker
        metrics.MODEL_BREAKER.labels(side.provider.name).set(breaker.wait_s(monotonic()) > 0)


def _reply(
    provider: Provider, answer: Answer, tokens_in: int, tokens_out: int, seconds: float, usd: float | None
) -> Reply:
    return Reply(
        text=answer.text,
        calls=answer.calls,
        finish="calls" if answer.calls else answer.finish,
        unreadable=answer.unreadable,
        provider=provider.name,
        model=provider.model,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        seconds=seconds,
        usd=usd,
    )


def _count(side: _Side, outcome: str) -> None:
    metrics.MODEL_CALLS.labels(side.provider.name, side.provider.model, outcome).inc()


def _measure(reply: Reply) -> None:
    who: tuple[Any, ...] = reply.provider, reply.model
    metrics.MODEL_CALLS.labels(*who, "unreadable" if reply.unreadable else "answered").inc()
    metrics.MODEL_TOKENS.labels(*who, "in").inc(reply.tokens_in)
    metrics.MODEL_TOKENS.labels(*who, "out").inc(reply.tokens_out)
    metrics.MODEL_SECONDS.labels(*who).observe(reply.seconds)
    if reply.usd is not None:
        metrics.MODEL_USD.labels(*who).inc(reply.usd)
