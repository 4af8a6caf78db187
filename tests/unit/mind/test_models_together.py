"""The agent's models as one: deadlines, a second provider, patience, local models, shares and money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from model_wire import Answer, delta, done, events, lines, text, usage, wire

from chorus.config import AiSettings
from chorus.config.load import load_settings
from chorus.mind import backoff, breaker
from chorus.mind.accounting import Accounts
from chorus.mind.kept_calls import KeptCalls
from chorus.mind.models import Models
from chorus.mind.providers import addresses
from chorus.mind.providers.addresses import is_local
from chorus.mind.thinking import ModelAway, ModelRefused, ModelTooLong, Reply, ToolSpec, Turn

GENEROUS_S = 60.0
SHOWN = Answer((b'{"capabilities": ["tools"], "model_info": {}}',))
GOOD = lines(text("from ollama"), done())
OTHER = events(delta(content="from the other"), delta(finish="stop"), usage(100_000, 10_000))
BROKEN = lines(text("half"), end="broken")
TURNS = (Turn("system", "You work."), Turn("user", "Do it."))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "WAIT_FIRST_S", 0.001)


@asynccontextmanager
async def models(
    folder: Path, sharing: Callable[[], int] = lambda: 1, kept: KeptCalls | None = None, **environ: str
) -> AsyncIterator[Models]:
    ai: AiSettings = load_settings({"CHORUS_LICENSE_ID": "dev-1", "OLLAMA_MODEL": "m", **environ}).ai
    made = Models(ai, Accounts(folder / "spending.json", ai.prices, ai.daily_usd), sharing, kept=kept)
    try:
        yield made
    finally:
        await made.close()


def second(url: str) -> dict[str, str]:
    return {
        "CHORUS_AI_FALLBACK": "resetdata",
        "RESETDATA_API_KEY": "k",
        "RESETDATA_MODEL": "r",
        "RESETDATA_BASE_URL": url,
        "CHORUS_AI_PRICES": '{"r": {"in": 2, "out": 10}}',
    }


async def ask(made: Models, deadline_s: float = GENEROUS_S, *, local_only: bool = False) -> Reply:
    return await made.ask(TURNS, (), deadline_s=deadline_s, local_only=local_only)


async def test_the_second_provider_gets_the_same_conversation(tmp_path: Path) -> None:
    async with (
        wire(BROKEN) as first,
        wire(OTHER) as other,
        models(tmp_path, OLLAMA_ENDPOINT=first.url, **second(other.url)) as made,
    ):
        assert made.window() == 32_768
        reply = await ask(made)
        assert (reply.text, reply.provider, reply.model) == ("from the other", "resetdata", "r")
        assert reply.usd == pytest.approx(0.3)
        assert made.accounts.spent_usd == pytest.approx(0.3)
        assert other.asked[0].body["messages"] == first.asked[0].body["messages"]
        assert len(first.asked) == backoff.TRIES_MAX


async def test_a_conversation_that_one_provider_finds_too_long_goes_to_the_other(tmp_path: Path) -> None:
    too_long = lines({"error": "the input length exceeds the context length"})
    async with (
        wire(too_long) as small,
        wire(OTHER, Answer((b"no key",), status=401)) as other,
        models(tmp_path, OLLAMA_ENDPOINT=small.url, **second(other.url)) as made,
    ):
        assert (await ask(made)).text == "from the other"
        # Whatever the other says, a shorter one may be answered.
        with pytest.raises(ModelTooLong, match=r"context length.*401"):
            await ask(made)
        assert len(small.asked) == 2


async def test_a_provider_that_failed_again_and_again_is_left_alone_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("chorus.mind.models.monotonic", lambda: now[0])
    script = [*[BROKEN] * breaker.FAILURES_MAX, GOOD]
    async with (
        wire(*script) as first,
        wire(OTHER) as other,
        models(tmp_path, OLLAMA_ENDPOINT=first.url, **second(other.url)) as made,
    ):
        for _ in range(4):
            assert (await ask(made)).provider == "resetdata"
        assert len(first.asked) == breaker.FAILURES_MAX
        await made.look()
        assert len(first.asked) == breaker.FAILURES_MAX
        now[0] += breaker.OPEN_FIRST_S
        assert (await ask(made)).provider == "ollama"
        assert (await ask(made)).provider == "ollama"


async def test_when_both_are_away_each_is_named(tmp_path: Path) -> None:
    refusing = Answer((b'{"error": "bad key"}',), status=401)
    async with (
        wire(refusing) as other,
        models(tmp_path, OLLAMA_ENDPOINT="http://127.0.0.1:1", **second(other.url)) as made,
    ):
        with pytest.raises(ModelAway) as caught:
            await ask(made)
    assert "ollama (m): no connection" in caught.value.reason
    assert "resetdata (r): it answered 401: bad key" in caught.value.reason


async def test_a_call_ends_with_its_time_and_is_not_repeated(tmp_path: Path) -> None:
    silent = lines(text("I think"), end="open")
    async with wire(silent) as server, models(tmp_path, OLLAMA_ENDPOINT=server.url) as made:
        with pytest.raises(ModelAway, match="no whole answer within"):
            await ask(made, deadline_s=0.3)
        assert len(server.asked) == 1
        await asyncio.wait_for(server.gone.wait(), GENEROUS_S)
    async with (
        wire(silent) as server,
        models(tmp_path, OLLAMA_ENDPOINT=server.url, CHORUS_AI_TIMEOUT="1s") as made,
    ):
        with pytest.raises(ModelAway, match="no whole answer within 1 s"):
            await ask(made)
        assert len(server.asked) == 1


async def test_a_call_that_is_cancelled_closes_its_connection(tmp_path: Path) -> None:
    async with wire(Answer(end="open")) as server, models(tmp_path, OLLAMA_ENDPOINT=server.url) as made:
        asking = asyncio.create_task(ask(made))
        await asyncio.wait_for(server.told.wait(), GENEROUS_S)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(server.gone.wait(), GENEROUS_S)


async def test_a_local_goal_goes_to_local_models_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolved(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "near.test" else ["93.184.216.34", "127.0.0.1"]

    monkeypatch.setattr(addresses, "addresses_of", resolved)
    async with wire(SHOWN, GOOD) as near:
        far = second("http://far.test:9/v1")
        endpoint = f"http://near.test:{near.port}"
        async with models(tmp_path, OLLAMA_ENDPOINT=endpoint, **far) as made:
            # By the address that was judged, under the name that was given.
            assert (await ask(made, local_only=True)).text == "from ollama"
            assert {asked.headers["host"] for asked in near.asked} == {f"near.test:{near.port}"}
            assert [await provider.local() for provider in made.providers] == [True, False]
    async with models(tmp_path, OLLAMA_ENDPOINT="http://far.test:9", **far) as made:
        with pytest.raises(ModelRefused) as caught:
            await ask(made, local_only=True)
        assert caught.value.reason.count("far.test is beyond loopback and private addresses") == 2


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.72", True),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("8.8.8.8", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("::1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("far.test", False),
        ("", False),
    ],
)
def test_which_addresses_are_local(address: str, local: bool) -> None:
    assert is_local(address) == local


async def test_the_share_of_a_limit_is_kept_and_waited_for(tmp_path: Path) -> None:
    async with (
        wire(OTHER) as other,
        models(
            tmp_path,
            lambda: 40,
            **{**second(other.url), "CHORUS_AI_PROVIDER": "resetdata", "CHORUS_AI_FALLBACK": "none"},
        ) as made,
    ):
        assert (await ask(made)).text == "from the other"
        with pytest.raises(ModelAway, match="shared by 40 agents"):
            await ask(made, deadline_s=5)
        await made.look()
        assert len(other.asked) == 1


async def test_the_try_without_tools_counts_for_the_limit_too(tmp_path: Path) -> None:
    no_tools = Answer((b'{"error": "r does not support tools"}',), status=400)
    alone = {"CHORUS_AI_PROVIDER": "resetdata", "CHORUS_AI_FALLBACK": "none"}
    tools = (ToolSpec("run", "Runs.", {"type": "object", "properties": {"command": {"type": "string"}}}),)
    async with (
        wire(no_tools, OTHER) as server,
        models(tmp_path, lambda: 20, **{**second(server.url), **alone}) as made,
    ):
        assert (await made.ask(TURNS, tools, deadline_s=GENEROUS_S)).text == "from the other"
        assert len(server.asked) == 2
        # Of two calls a minute none is left.
        with pytest.raises(ModelAway, match="shared by 20 agents"):
            await ask(made, deadline_s=5)
        assert len(server.asked) == 2


async def test_a_restart_gives_no_calls_back(tmp_path: Path) -> None:
    now, kept = [1_000_000.0], tmp_path / "model-calls.json"
    alone = {"CHORUS_AI_PROVIDER": "resetdata", "CHORUS_AI_FALLBACK": "none"}
    async with wire(OTHER) as server:
        of = {**second(server.url), **alone}

        async def life(sharing: int) -> None:
            calls = KeptCalls(kept, lambda: now[0])
            async with models(tmp_path, lambda: sharing, kept=calls, **of) as made:
                await ask(made, deadline_s=5)

        await life(20)
        now[0] += 20
        await life(20)
        now[0] += 20
        with pytest.raises(ModelAway, match="shared by 20 agents"):
            await life(20)
        # The clock was set back: both calls are as new.
        now[0] -= 1000
        with pytest.raises(ModelAway, match="shared by 20 agents"):
            await life(20)
        now[0] += 1061
        await life(20)
        assert len(server.asked) == 3
        # Nobody knows: all calls of the last minute may have been made.
        kept.write_text('["x"]')
        with pytest.raises(ModelAway, match="shared by 1 agents"):
            await life(1)


async def test_the_day_s_money_is_a_reason_that_names_itself(tmp_path: Path) -> None:
    async with (
        wire(GOOD) as first,
        wire(OTHER) as other,
        models(
            tmp_path,
            OLLAMA_ENDPOINT=first.url,
            **{
                **second(other.url),
                "CHORUS_AI_PROVIDER": "resetdata",
                "CHORUS_AI_FALLBACK": "ollama",
                "CHORUS_AI_DAILY_USD": "0.3",
            },
        ) as made,
    ):
        assert (await ask(made)).provider == "resetdata"
        # What costs nothing goes on.
        assert (await ask(made)).provider == "ollama"
        assert len(other.asked) == 1
    async with models(
        tmp_path,
        **{
            **second("http://127.0.0.1:1"),
            "CHORUS_AI_PROVIDER": "resetdata",
            "CHORUS_AI_FALLBACK": "none",
            "CHORUS_AI_DAILY_USD": "0.3",
        },
    ) as made:
        with pytest.raises(ModelRefused, match="CHORUS_AI_DAILY_USD"):
            await ask(made)


async def test_who_answers_with_an_error_is_not_paid(tmp_path: Path) -> None:
    busy = Answer((b"busy",), status=503)
    async with (
        wire(busy) as other,
        models(
            tmp_path,
            **{**second(other.url), "CHORUS_AI_PROVIDER": "resetdata", "CHORUS_AI_FALLBACK": "none"},
        ) as made,
    ):
        with pytest.raises(ModelAway):
            await ask(made)
        assert made.accounts.spent_usd == 0


async def test_a_count_of_tokens_is_rather_too_high(tmp_path: Path) -> None:
    async with models(tmp_path, OLLAMA_ENDPOINT="http://127.0.0.1:1") as made:
        assert made.count("") == 1
        assert made.count("x" * 300) == 101
        assert made.count("語" * 100) == 101
        # Of digits each is a token with most models.
        assert made.count("0123456789" * 10) == 101
