"""Smaller parts of the parent: failing programs started again, the log relay, the drain."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from chorus.agent.drain import DRAINED, Drain
from chorus.agent.relay import LINE_MAX_BYTES, Relay, Writer
from chorus.agent.restarts import Restarts
from chorus.config.load import load_settings
from chorus.core import Scanner
from chorus.hub import Hub, HubUnavailable, Request
from chorus.process import crashes, logs
from chorus.testing.fake_hub import FakeMesh

SETTINGS = load_settings({"CHORUS_LICENSE_ID": "dev-1", "CHORUS_SHUTDOWN_TIMEOUT": "60s"})
LOG = logs.bind()


async def test_a_program_given_up_is_started_again_with_growing_waits(tmp_path: Path) -> None:
    started: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    path = tmp_path / "crashes.json"

    def start(name: str) -> str:
        loop.call_soon_threadsafe(started.put_nowait, name)
        return ""

    restarts = Restarts(path, LOG, start)
    restarts._waits["node"] = 0.01
    restarts.on_event("PROCESS_STATE_RUNNING", {"processname": "node"})
    assert crashes.load(path) == {}
    restarts.on_event("PROCESS_STATE_EXITED", {"processname": "node", "pid": "7"})
    assert crashes.load(path)["node"].state == "restarting"
    restarts.on_event("PROCESS_STATE_FATAL", {"processname": "node"})
    assert crashes.repeating(path, 0) == ["node"]
    assert await asyncio.wait_for(started.get(), 10) == "node"
    assert restarts._waits["node"] == 0.02
    restarts.on_event("PROCESS_STATE_RUNNING", {"processname": "node"})
    record = crashes.load(path)["node"]
    assert (record.state, record.count, record.next_start_ms) == ("running", 1, None)


async def test_a_start_that_fails_is_tried_again(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    answers = ["no", "no", ""]
    done = asyncio.Event()

    def start(name: str) -> str:
        answer = answers.pop(0)
        if not answers:
            loop.call_soon_threadsafe(done.set)
        return answer

    restarts = Restarts(tmp_path / "crashes.json", LOG, start)
    restarts._waits["api"] = 0.01
    restarts.on_event("PROCESS_STATE_FATAL", {"processname": "api"})
    await asyncio.wait_for(done.wait(), 10)


async def test_after_a_stop_nothing_is_started(tmp_path: Path) -> None:
    restarts = Restarts(tmp_path / "crashes.json", LOG, lambda name: "never called")
    restarts.on_event("PROCESS_STATE_FATAL", {"processname": "api"})
    restarts.stop()
    assert all(timer.cancelled() for timer in restarts._timers.values())


def test_the_relay_passes_lines_and_tells_of_strays() -> None:
    out = io.BytesIO()
    told: list[bytes] = []
    log = logs.configure("agent", "a", "debug", "json", write=told.append)
    writer = Writer(out)
    relay = Relay(writer, log, Scanner(), supervisord=False)
    relay.take(b'{"event": "one"}\n{"event"')
    relay.take(b': "two"}\nTraceback (most recent call last):\n\n')
    writer.close(10)
    assert out.getvalue() == b'{"event": "one"}\n{"event": "two"}\n'
    assert len(told) == 1
    assert b"Traceback" in told[0]
    supervisord = Relay(writer, log, Scanner(), supervisord=True)
    supervisord.take(b"2025-11-23 12:00:00,123 CRIT no more pids\n")
    assert b'"level": "error"' in told[1]
    assert b'"event": "no more pids"' in told[1]


def test_a_line_without_end_does_not_grow_in_memory() -> None:
    out = io.BytesIO()
    log = logs.configure("agent", "a", "debug", "json", write=lambda line: None)
    relay = Relay(Writer(out), log, Scanner(), supervisord=False)
    for _ in range(100):
        relay.take(b"x" * 64 * 1024)
    assert len(relay._rest) <= 2 * 64 * 1024


TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
ACME = {"id": "acme", "keywords": ["acme_"], "pattern": "acme_[0-9]{4}", "found": ["acme_4711"]}
RULES = json.dumps({"rules": [ACME]})


def relayed(*pieces: bytes) -> tuple[bytes, bytes]:
    """What comes out as it came, and what is said of the rest."""
    out, told = io.BytesIO(), list[bytes]()
    scanner = Scanner(rules=RULES)
    log = logs.configure("agent", "a", "debug", "json", write=told.append, sentinel=scanner)
    writer = Writer(out)
    relay = Relay(writer, log, scanner, supervisord=False)
    for piece in pieces:
        relay.take(piece)
    writer.close(10)
    return out.getvalue(), b"".join(told)


def test_relayed_lines_are_redacted_and_json_stays_json() -> None:
    plain = b'{"event":  "as it came",\t"n": 1.0}\n'
    line = (
        json.dumps({"event": f'it is "{TOKEN}"', "acme_4711": [{"password": "Gr33n-T3a!x9"}]}).encode()
        + b"\n"
    )
    text = f"12:00:00.123 info    api          it is {TOKEN} acme_4711\n".encode()
    out, told = relayed(plain + line + text, b"{ no JSON " + TOKEN.encode() + b"\n")
    first, second, third = out.splitlines(keepends=True)
    assert first == plain
    redacted = json.loads(second)
    assert redacted["event"] == 'it is "[REDACTED:github-token]"'
    assert "[REDACTED:acme]" in redacted
    assert third.endswith(b"it is [REDACTED:github-token] [REDACTED:acme]\n")
    assert b"no JSON [REDACTED:github-token]" in told
    assert TOKEN.encode() not in out + told
    assert b"Gr33n" not in out + told


@pytest.mark.parametrize("before", range(0, 45, 4))
@pytest.mark.parametrize("opening", [b"{", b"x"])
def test_a_secret_where_the_pieces_of_an_endless_line_meet_is_found(opening: bytes, before: int) -> None:
    line = opening + b"x" * (LINE_MAX_BYTES - before) + b" " + TOKEN.encode() + b" "
    cut = LINE_MAX_BYTES + 2
    out, told = relayed(line[:cut], line[cut:], b"y" * LINE_MAX_BYTES, b"\n", b'{"event": "next"}\n')
    assert out == b'{"event": "next"}\n'
    assert b"x7Kq2LmV" not in told
    assert b"5aQw" not in told


async def test_a_drain_asks_all_and_ends_when_they_have_answered() -> None:
    mesh = FakeMesh()
    asked: list[tuple[str, str, object]] = []
    for name in DRAINED:

        async def answer(request: Request) -> dict[str, object]:
            asked.append((request.service, request.method, request.head["deadline_s"]))
            return {}

        await mesh.hub("a", name).offer(name, answer)

    for most, seconds in ((None, 60.0), (30.0, 30.0), (90.0, 60.0)):
        asked.clear()
        drain = Drain(SETTINGS, LOG, lambda settings: _hub(mesh))
        if most is not None:
            drain.within(most)
        await drain.run()
        deadlines = {service: deadline for service, method, deadline in asked if method == "drain"}
        assert deadlines == {"coordinator": 10.0, "executor": seconds, "election": 10.0}


async def test_a_second_signal_gives_tasks_back() -> None:
    mesh = FakeMesh()
    draining, released = asyncio.Event(), asyncio.Event()

    async def executor(request: Request) -> dict[str, object]:
        if request.method == "release":
            released.set()
            return {}
        draining.set()
        await asyncio.Event().wait()
        return {}

    await mesh.hub("a", "executor").offer("executor", executor)
    drain = Drain(SETTINGS, LOG, lambda settings: _hub(mesh))
    running = asyncio.create_task(drain.run())
    await asyncio.wait_for(draining.wait(), 10)
    assert not running.done()
    drain.hurry()
    await asyncio.wait_for(running, 10)
    assert released.is_set()


async def test_a_drain_without_a_hub_ends() -> None:
    async def nowhere(settings: object) -> Hub:
        raise HubUnavailable("no hub")

    await Drain(SETTINGS, LOG, nowhere).run()


async def _hub(mesh: FakeMesh) -> Hub:
    return mesh.hub("a", "agent")
