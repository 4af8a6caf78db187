"""What a goal that goes on from another is told of it, by the members that hold what it left."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.goal import earlier_run
from chorus.executor.goal.earlier_run import EarlierRuns
from chorus.executor.goal.last_steps import last_steps
from chorus.hub import ByteStream, Request
from chorus.testing.anything import VALUES
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id

TASK = new_id()


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def step(number: int, command: str, text: str = "", code: int = 0) -> list[dict[str, Any]]:
    named = {"step": number, "call": 1}
    return [
        {"kind": "call", **named, "tool": "run", "arguments": {"command": command}},
        {"kind": "outcome", **named, "ok": code == 0, "exit_code": code, "text": text},
    ]


RUN = lines({"kind": "start"}, *step(1, "make\ntest", "x.py:3\nerror", 2), *step(2, "make"))


async def told(holders: dict[str, bytes], sha256: str, **result: Any) -> str:
    """The summary of a run whose transcript these agents hold."""
    mesh = FakeMesh()
    for name, content in holders.items():

        async def stream(request: Request, stream: ByteStream, content: bytes = content) -> None:
            assert request.head["path"] == "transcript.jsonl"
            for place in range(0, len(content), 1000):
                await stream.write(content[place : place + 1000])

        async def handle(request: Request) -> dict[str, Any]:
            return {}

        await mesh.hub(name, "executor").offer("output", handle, peers=True, streams=stream)
    here = mesh.hub("here", "executor")
    report = {"goal": {"patch": None, "transcript_sha256": sha256}, "ended_by": "steps", **result}
    row = SimpleNamespace(result=report, open=False, state="failed", reason="used up", attempt=1)
    known = [SimpleNamespace(peer=mesh.agent(name).peer_id) for name in holders]
    table: Any = SimpleNamespace(
        task=lambda task_id: row, held=SimpleNamespace(holders=lambda task_id, attempt: known)
    )
    return (await EarlierRuns(here, table).find(TASK)).summary


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_the_last_steps_are_told() -> None:
    summary = await told({"a": RUN}, sha256(RUN), summary="It tried.")
    assert summary.splitlines() == [
        "It ended as failed (steps). used up",
        "It tried.",
        "Its last steps:",
        "step 1: run command=make test: failed with 2: x.py:3 error",
        "step 2: run command=make: done",
    ]


async def test_only_the_transcript_that_the_result_names_is_told() -> None:
    forged = lines(*step(1, "forged"))
    assert "forged" not in await told({"a": forged}, sha256(RUN))
    summary = await told({"a": forged, "b": RUN}, sha256(RUN))
    assert "run command=make: done" in summary


async def test_a_run_goes_on_without_a_transcript() -> None:
    assert await told({}, sha256(RUN)) == "It ended as failed (steps). used up"
    assert await told({"a": RUN}, "") == "It ended as failed (steps). used up"


async def test_of_a_long_run_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_run, "_TAIL_BYTES", 5000)
    long = lines(*(record for number in range(1, 500) for record in step(number, "x" * 100, "y" * 300)))
    summary = await told({"a": long}, sha256(long), summary="z" * 9000)
    assert "step 499: " in summary
    assert "step 1: " not in summary
    assert len(summary) <= 6000


def test_as_many_steps_are_told_as_fit() -> None:
    whole = last_steps(RUN, 1000)
    assert last_steps(RUN, len(whole)) == whole.splitlines()[1]
    assert last_steps(RUN, 0) == ""


def test_a_deep_argument_is_borne() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    transcript = b'{"kind":"call","step":1,"call":1,"tool":"run","arguments":{"x":%s}}\n' % deep
    outcome = lines({"kind": "outcome", "step": 1, "call": 1, "ok": True})
    assert last_steps(transcript + outcome, 100) == "step 1: run x=…: done"


@given(
    st.lists(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["call", "outcome"])},
            optional=dict.fromkeys(("step", "call", "tool", "arguments", "text", "exit_code", "ok"), VALUES),
        )
    ).map(lambda records: "\n".join(map(json.dumps, records)).encode())
    | st.binary(max_size=100),
    st.integers(0, 500),
)
def test_whatever_a_transcript_holds_is_borne(transcript: bytes, chars_max: int) -> None:
    assert len(last_steps(transcript, chars_max)) <= chars_max
