"""Both wires against a server over a real socket: streams, tools, cuts, garbage, and what is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_wire import Answer, Wire, call, cut, delta, done, events, lines, text, usage, wire

from chorus.config import AiSettings
from chorus.config.load import load_settings
from chorus.mind import backoff
from chorus.mind.accounting import Accounts
from chorus.mind.models import Models
from chorus.mind.providers import lines as lines_module
from chorus.mind.providers.failures import BadCall, Failed, Garbled, NoTools
from chorus.mind.providers.lines import Lines
from chorus.mind.providers.ollama_wire import ChatLines, read_show
from chorus.mind.providers.openai_wire import EventLines
from chorus.mind.providers.pieces import Bounds, Call, Text
from chorus.mind.providers.provider import CUT_OFF
from chorus.mind.thinking import (
    CALLS_MAX,
    CALLS_MAX_BYTES,
    TEXT_MAX_BYTES,
    ModelAway,
    ModelRefused,
    ModelTooLong,
    Reply,
    ToolCall,
    ToolSpec,
    Turn,
)

RUN = ToolSpec(
    "run",
    "Runs a command.",
    {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)
FINISH = ToolSpec("finish", "Ends.", {"type": "object", "properties": {"summary": {"type": "string"}}})
TURNS = (
    Turn("system", "You work."),
    Turn("user", "Do it."),
    Turn("assistant", "First.", (ToolCall("run", {"command": "ls"}), ToolCall("run", {"command": "pwd"}))),
    Turn("tool", "a.py", tool="run"),
    Turn("tool", "/w", tool="run"),
)
GENEROUS_S = 60.0


def ai(**environ: str) -> AiSettings:
    return load_settings({"CHORUS_LICENSE_ID": "dev-1", **environ}).ai


def ollama_at(url: str, **environ: str) -> AiSettings:
    return ai(OLLAMA_ENDPOINT=url, OLLAMA_MODEL="m:1", **environ)


def resetdata_at(url: str, **environ: str) -> AiSettings:
    key = {"RESETDATA_API_KEY": "the-key", "RESETDATA_BASE_URL": url, "RESETDATA_MODEL": "org/m"}
    return ai(CHORUS_AI_PROVIDER="resetdata", **{**key, **environ})


@asynccontextmanager
async def models(made: AiSettings, folder: Path) -> AsyncIterator[Models]:
    thinking = Models(made, Accounts(folder / "spending.json", made.prices, made.daily_usd), lambda: 1)
    try:
        yield thinking
    finally:
        await thinking.close()


async def ask(thinking: Models, tools: tuple[ToolSpec, ...] = (RUN, FINISH), **more: Any) -> Reply:
    return await thinking.ask(TURNS, tools, **{"deadline_s": GENEROUS_S, **more})


async def ask_ollama(folder: Path, *script: Answer, **environ: str) -> tuple[Reply, Wire]:
    async with wire(*script) as server, models(ollama_at(server.url, **environ), folder) as thinking:
        return await ask(thinking), server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "WAIT_FIRST_S", 0.001)


async def test_ollama_is_asked_on_its_own_wire_with_the_whole_window(tmp_path: Path) -> None:
    pieces: list[str] = []
    async with (
        wire(lines(text("On "), text("it."), call("run", {"command": "make"}), done())) as server,
        models(ollama_at(server.url, CHORUS_AI_CONTEXT="8192"), tmp_path) as thinking,
    ):
        reply = await ask(thinking, on_text=pieces.append)
    assert (reply.text, reply.finish, reply.unreadable) == ("On it.", "calls", "")
    assert reply.calls == (ToolCall("run", {"command": "make"}),)
    assert (reply.provider, reply.model, reply.tokens_in, reply.tokens_out) == ("ollama", "m:1", 7, 3)
    assert reply.usd is None
    assert "".join(pieces) == "On it."
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/chat")
    assert asked.body["options"] == {"num_ctx": 8192, "num_predict": 2048}
    assert (asked.body["truncate"], asked.body["stream"], asked.body["model"]) == (False, True, "m:1")
    assert asked.body["messages"] == [
        {"role": "system", "content": "You work."},
        {"role": "user", "content": "Do it."},
        {
            "role": "assistant",
            "content": "First.",
            "tool_calls": [
                {"function": {"name": "run", "arguments": {"command": "ls"}}},
                {"function": {"name": "run", "arguments": {"command": "pwd"}}},
            ],
        },
        {"role": "tool", "content": "a.py", "tool_name": "run"},
        {"role": "tool", "content": "/w", "tool_name": "run"},
    ]
    assert [tool["function"]["name"] for tool in asked.body["tools"]] == ["run", "finish"]
    assert asked.body["tools"][0]["function"]["parameters"] == RUN.parameters


async def test_the_other_wire_with_its_key_and_calls_in_parts(tmp_path: Path) -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "run", "arguments": '{"comm'}}
    rest = {"index": 0, "function": {"arguments": 'and": "ls"}'}}
    script = events(
        delta(role="assistant", content="On "),
        delta(content="it."),
        delta(tool_calls=[first]),
        delta(tool_calls=[rest]),
        delta(finish="tool_calls"),
        usage(11, 5),
    )
    async with wire(script) as server, models(resetdata_at(server.url), tmp_path) as thinking:
        assert thinking.window() == 60_000
        reply = await ask(thinking)
    assert (reply.text, reply.calls) == ("On it.", (ToolCall("run", {"command": "ls"}),))
    assert (reply.provider, reply.tokens_in, reply.tokens_out) == ("resetdata", 11, 5)
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer the-key"
    said = asked.body["messages"]
    ids = [one["id"] for one in said[2]["tool_calls"]]
    assert [one["tool_call_id"] for one in said[3:]] == ids
    assert json.loads(said[2]["tool_calls"][0]["function"]["arguments"]) == {"command": "ls"}


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("unknown tool", call("fly", {})),
        ("missing argument", call("run", {})),
        ("argument of another type", call("run", {"command": 3})),
        ("unknown argument", call("run", {"command": "ls", "speed": 3})),
        ("arguments that are no object", call("run", [1])),
        ("arguments that are no JSON", call("run", "{")),
    ],
)
async def test_calls_that_cannot_be_made_go_back_to_the_model(
    tmp_path: Path, reason: str, said: dict[str, Any]
) -> None:
    reply, server = await ask_ollama(tmp_path, lines(call("run", {"command": "ls"}), said, done()))
    assert reply.calls == ()
    assert "None of the calls of this reply was made" in reply.unreadable
    assert {"unknown tool": "'fly'", "unknown argument": "'speed'"}.get(reason, "") in reply.unreadable
    assert len(server.asked) == 1


async def test_a_reply_that_was_cut_off_does_nothing_and_says_so(tmp_path: Path) -> None:
    reply, _ = await ask_ollama(tmp_path, lines(call("run", {"command": "rm"}), text("a"), done("length")))
    assert (reply.calls, reply.finish, reply.unreadable) == ((), "length", CUT_OFF)


async def test_an_endless_text_is_cut_and_its_connection_closed(tmp_path: Path) -> None:
    script = Answer(tuple([json.dumps(text("x" * 4096)).encode() + b"\n"] * 40), end="open")
    async with wire(script) as server, models(ollama_at(server.url), tmp_path) as thinking:
        reply = await ask(thinking)
        await asyncio.wait_for(server.gone.wait(), GENEROUS_S)
    assert len(reply.text.encode()) == TEXT_MAX_BYTES
    assert (reply.finish, reply.unreadable) == ("length", CUT_OFF)


async def test_more_calls_or_larger_ones_than_a_reply_may_have(tmp_path: Path) -> None:
    many = [call("run", {"command": "ls"})] * (CALLS_MAX + 1)
    for said in (many, [call("run", {"command": "x" * CALLS_MAX_BYTES})]):
        reply, _ = await ask_ollama(tmp_path, lines(*said, done()))
        assert (reply.calls, reply.finish) == ((), "length")
    reply, _ = await ask_ollama(tmp_path, lines(*many[1:], done()))
    assert len(reply.calls) == CALLS_MAX


def test_names_that_grow_piece_by_piece_are_bounded() -> None:
    bounds = Bounds()
    pieces = [Call(0, "n" * 4096, "")] * 100
    assert sum(bounds.take(piece) is not None for piece in pieces) * 4096 == CALLS_MAX_BYTES
    assert bounds.full


@pytest.mark.parametrize(
    "garbage",
    [
        Answer((b"<html>\n",)),
        Answer((b"[]\n",)),
        lines({"message": "hello"}),
        lines({"message": {"content": 3}}),
        lines({"message": {"tool_calls": {}}}),
        lines({"message": {"tool_calls": [{"function": {"name": 3}}]}}),
        Answer((b"x" * (lines_module.LINE_MAX_BYTES + 1), b"\n")),
        Answer((b"\x1f\x8b\x08",), headers=(("Content-Encoding", "gzip"),)),
    ],
)
async def test_garbage_is_refused_by_name_and_the_next_answer_counts(tmp_path: Path, garbage: Answer) -> None:
    reply, _ = await ask_ollama(tmp_path, garbage, lines(text("well"), done()))
    assert reply.text == "well"
    async with wire(garbage) as server, models(ollama_at(server.url), tmp_path) as thinking:
        with pytest.raises(ModelRefused, match=r"ollama \(m:1\): its answers cannot be read"):
            await ask(thinking)
        assert len(server.asked) == backoff.TRIES_MAX


async def test_a_broken_stream_is_tried_again_and_then_the_model_is_away(tmp_path: Path) -> None:
    for broken in (lines(text("half"), end="broken"), lines(text("half"))):
        reply, _ = await ask_ollama(tmp_path, broken, lines(text("whole"), done()))
        assert reply.text == "whole"
        async with wire(broken) as server, models(ollama_at(server.url), tmp_path) as thinking:
            with pytest.raises(ModelAway, match="broke off"):
                await ask(thinking)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with wire(lines(text("elsewhere"), done())) as other:
        there = Answer(status=307, headers=(("Location", f"{other.url}/api/chat"),))
        async with wire(there) as server, models(ollama_at(server.url), tmp_path) as thinking:
            with pytest.raises(ModelRefused, match="redirect"):
                await ask(thinking)
        assert other.asked == []


async def test_a_server_that_asks_for_patience_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    real = backoff.wait_s

    def wait_s(*arguments: Any) -> float | None:
        waits.append(real(*arguments))
        return 0.0

    monkeypatch.setattr(backoff, "wait_s", wait_s)
    monkeypatch.setattr("chorus.mind.breaker.OPEN_MAX_S", 0.0)
    busy = Answer((b'{"error": "busy"}',), status=429, headers=(("Retry-After", "7"),))
    reply, server = await ask_ollama(tmp_path, busy, busy, lines(text("now"), done()))
    assert reply.text == "now"
    assert len(server.asked) == 3
    assert all(wait is not None and wait >= 7 for wait in waits)


async def test_one_that_asks_for_more_patience_than_there_is_counts_as_away(tmp_path: Path) -> None:
    busy = Answer((b'{"error": {"message": "quota"}}',), status=429, headers=(("Retry-After", "3600"),))
    async with wire(busy) as server, models(resetdata_at(server.url), tmp_path) as thinking:
        with pytest.raises(ModelAway, match="429: quota"):
            await ask(thinking)
        with pytest.raises(ModelAway, match="left alone"):
            await ask(thinking)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [
        (Answer((b'{"error": "model m:1 not found"}',), status=404), ModelAway, 1),
        (Answer((b"no key",), status=401), ModelRefused, 1),
        (Answer((b'{"error": "the input length exceeds the context length"}',), status=400), ModelTooLong, 1),
        (Answer((b'{"error": "maximum context length is 8 tokens"}',), status=400), ModelTooLong, 1),
        (Answer((b'{"error": "9 tokens exceed the context size"}',), status=400), ModelTooLong, 1),
        (Answer((b"<html>",), status=413), ModelTooLong, 1),
        (Answer((b'{"error": "no such option"}',), status=400), ModelRefused, 1),
        (Answer((b"[" * 9000,), status=500), ModelAway, backoff.TRIES_MAX),
        (Answer((b"x" * 99_999,), status=503), ModelAway, backoff.TRIES_MAX),
    ],
)
async def test_what_other_statuses_mean(
    tmp_path: Path, answer: Answer, error: type[Exception], tries: int
) -> None:
    async with wire(answer) as server, models(ollama_at(server.url), tmp_path) as thinking:
        with pytest.raises(error) as raised:
            await ask(thinking)
        assert type(raised.value) is error
        assert len(server.asked) == tries


async def test_a_model_without_tools_works_through_text(tmp_path: Path) -> None:
    no_tools = Answer((b'{"error": "registry/m:1 does not support tools"}',), status=400)
    written = lines(text("Look.\n```bash\nls\n```\n"), done())
    async with (
        wire(no_tools, written, written) as server,
        models(ollama_at(server.url), tmp_path) as thinking,
    ):
        assert thinking.calls_tools()
        reply = await ask(thinking)
        assert not thinking.calls_tools()
        await ask(thinking)
    assert reply.calls == (ToolCall("run", {"command": "ls"}),)
    assert ["tools" in one.body for one in server.asked] == [True, False, False]
    roles = [one["role"] for one in server.asked[1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "```bash\npwd\n```" in server.asked[1].body["messages"][2]["content"]
    assert "DONE" in server.asked[1].body["messages"][0]["content"]


async def test_a_server_that_refuses_tools_whatever_it_is_asked(tmp_path: Path) -> None:
    no_tools = Answer((b'{"error": "m does not support tools"}',), status=400)
    async with wire(no_tools) as server, models(ollama_at(server.url), tmp_path) as thinking:
        with pytest.raises(ModelRefused, match="refuses tools"):
            await ask(thinking)
        await thinking.look()
        assert not thinking.providers[0].there


async def test_what_the_text_protocol_offers_has_to_be_a_tool_of_the_run(tmp_path: Path) -> None:
    no_tools = Answer((b'{"error": "m does not support tools"}',), status=400)
    done_at_once = lines(text("DONE\nall well"), done())
    async with wire(no_tools, done_at_once) as server, models(ollama_at(server.url), tmp_path) as thinking:
        reply = await ask(thinking, tools=(RUN,))
    assert reply.calls == ()
    assert "there is no tool 'finish'" in reply.unreadable


async def test_a_call_that_the_server_could_not_read_is_told_to_the_model(tmp_path: Path) -> None:
    said = '{"error": "error parsing tool call: raw=\'{bad\', err=invalid character"}'
    for answer in (Answer((said.encode(),), status=500), Answer((said.encode() + b"\n",))):
        reply, _ = await ask_ollama(tmp_path, answer)
        assert reply.calls == ()
        assert reply.unreadable.startswith("Your tool call could not be read")


async def test_calls_that_a_model_writes_into_its_text(tmp_path: Path) -> None:
    one = '{"name": "run", "arguments": {"command": "ls"}}'
    for said in (one, f"```json\n{one}\n```", f"<tool_call>\n{one}\n</tool_call>"):
        reply, _ = await ask_ollama(tmp_path, lines(text(said), done()))
        assert reply.calls == (ToolCall("run", {"command": "ls"}),), said
    for said in (f"An example: {one}", '{"name": "fly", "arguments": {}}', "{", ""):
        reply, _ = await ask_ollama(tmp_path, lines(text(said), done()))
        assert (reply.calls, reply.unreadable) == ((), ""), said


async def test_the_window_and_tools_are_those_that_the_server_shows(tmp_path: Path) -> None:
    shown = {"capabilities": ["completion"], "model_info": {"qwen2.context_length": 16384, "x": 1}}
    async with (
        wire(Answer((json.dumps(shown).encode(),))) as server,
        models(ollama_at(server.url), tmp_path) as thinking,
    ):
        assert thinking.window() == 32_768
        await thinking.look()
        [provider] = thinking.providers
        assert (provider.there, provider.window, provider.calls_tools) == (True, 16_384, False)
        assert await provider.local()
    assert (server.asked[0].path, server.asked[0].body) == ("/api/show", {"model": "m:1"})


async def test_a_server_that_passes_requests_on_is_not_local(tmp_path: Path) -> None:
    shown = Answer((json.dumps({"remote_host": "https://elsewhere", "model_info": {}}).encode(),))
    async with (
        wire(shown, lines(text("hello"), done())) as server,
        models(ollama_at(server.url), tmp_path) as thinking,
    ):
        await thinking.look()
        assert not await thinking.providers[0].local()
        with pytest.raises(ModelRefused, match="local model"):
            await ask(thinking, local_only=True)
        assert (await ask(thinking)).text == "hello"


async def test_a_local_goal_waits_for_the_first_look(tmp_path: Path) -> None:
    shown = Answer((json.dumps({"remote_host": "https://elsewhere", "model_info": {}}).encode(),))
    async with (
        wire(shown, lines(text("hello"), done())) as server,
        models(ollama_at(server.url), tmp_path) as thinking,
    ):
        with pytest.raises(ModelRefused, match="local model"):
            await ask(thinking, local_only=True)
    assert [asked.path for asked in server.asked] == ["/api/show"]


async def test_looks_say_why_a_model_is_not_there(tmp_path: Path) -> None:
    cases: list[tuple[Callable[[str], AiSettings], Answer, bool, str]] = [
        (ollama_at, Answer((b'{"error": "model not found"}',), status=404), False, "404: model not found"),
        (ollama_at, Answer((b"[]",)), False, "no JSON object"),
        (resetdata_at, Answer((b'{"data": [{"id": "org/m"}]}',)), True, "there"),
        (resetdata_at, Answer((b'{"data": [{"id": "other"}]}',)), False, "it has no model org/m"),
        (resetdata_at, Answer((b"nothing here",), status=404), True, "there"),
        (resetdata_at, Answer((b"bad key",), status=401), False, "401: bad key"),
    ]
    for settings_at, answer, there, detail in cases:
        async with wire(answer) as server, models(settings_at(server.url), tmp_path) as thinking:
            await thinking.look()
        [provider] = thinking.providers
        assert (provider.there, detail in provider.detail) == (there, True), (answer, provider.detail)
    async with models(ollama_at("http://127.0.0.1:1"), tmp_path) as thinking:
        await thinking.look()
        assert "no connection" in thinking.providers[0].detail


# ---- pure readers ----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
words = st.sampled_from(
    ["message", "content", "tool_calls", "function", "name", "arguments", "done", "error", "choices", "delta"]
)
shapes = st.recursive(
    json_values,
    lambda inner: st.dictionaries(words, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)
EXPECTED = (Garbled, Failed, NoTools, BadCall)


@settings(max_examples=150, deadline=None)
@given(st.lists(shapes | st.binary(max_size=40), max_size=4))
def test_no_line_breaks_a_reader(said: list[Any]) -> None:
    for each in said:
        line = each if isinstance(each, bytes) else json.dumps(each).encode()
        for reader, data in ((ChatLines(), line), (EventLines(), b"data: " + line)):
            try:
                pieces = reader.read(data)
            except EXPECTED:
                continue
            assert all(not isinstance(piece, Text) or isinstance(piece.text, str) for piece in pieces)
            assert all(not isinstance(piece, Call) or isinstance(piece.arguments, str) for piece in pieces)
        try:
            shown = read_show(line)
        except Garbled:
            continue
        assert shown.window is None or shown.window > 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 200), max_size=8))
def test_lines_come_whole_however_the_stream_is_cut(said: list[bytes], at: list[int]) -> None:
    wanted = [each.replace(b"\n", b"").replace(b"\r", b"") for each in said]
    data = b"".join(each + b"\n" for each in wanted)
    reader = Lines()
    assert [line for piece in cut(data, at) for line in reader.feed(piece)] == wanted
    assert reader.end() == []


def test_a_long_line_is_refused_before_it_is_whole() -> None:
    reader = Lines(most=10)
    assert reader.feed(b"x" * 10) == []
    with pytest.raises(Garbled, match="longer than 10 bytes"):
        reader.feed(b"x")
    with pytest.raises(Garbled):
        Lines(most=10).feed(b"ok\n" + b"x" * 11 + b"\n")


def test_deep_arguments_are_no_crash() -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    line = f'{{"message": {{"tool_calls": [{{"function": {{"name": "run", "arguments": {deep}}}}}]}}}}'
    with pytest.raises(Garbled):
        ChatLines().read(line.encode())
