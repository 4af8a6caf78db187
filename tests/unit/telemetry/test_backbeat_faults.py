"""What becomes of the client when its server is right, slow, wrong, silent, lying, garbage or restarted.

The server is the reference server in a process of its own. In every case work goes on, and all is well again
when the server is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from chorus.process import metrics
from chorus.telemetry.claims import Note, Phase
from chorus.telemetry.client import Backbeat
from chorus.telemetry.http_link import HttpLink
from chorus.telemetry.outgoing import QUEUE_MAX

from .conftest import CLUSTER, Server, running, settings_for, until


def note(name: str, phase: str = "running", outcome: str = "") -> Note:
    return Note(
        operation_id=f"task:{name}",
        kind="task",
        subject={"task_id": name, "attempt": 1},
        started_at=1_800_000_000.0,
        phase=phase,
        phases=(Phase(name="waiting", duration_s=0.5),),
        duration_s=0.5,
        outcome=outcome,
    )


def frames(outcome: str) -> float:
    return metrics.BACKBEAT_FRAMES.labels(outcome)._value.get()


async def in_step(server: Server, backbeat: Backbeat) -> None:
    """The pulse is heard, and what is noted arrives."""
    server.misbehave("none")

    def beats() -> bool:
        server.beat()
        return backbeat.beat.source == "pulse" and backbeat.health()["ok"]

    await until(beats, f"not in step: {backbeat.health()}")
    backbeat.take(note("AFTER", "", "completed"))
    await until(lambda: "AFTER" in noted(server), "what is noted does not arrive")


def noted(server: Server) -> set[str]:
    """The tasks of which an operation arrived."""
    return {body["subject"]["task_id"] for body in server.seen("operations")}


async def right(server: Server, backbeat: Backbeat) -> None:
    assert {claim["agent_id"] for claim in server.seen("status")} == {"agent-1"}
    assert "idle" in {claim["state"] for claim in server.seen("status")}
    backbeat.take(note("ONE"))
    server.beat()

    def claimed(state: str) -> list[int]:
        claims = server.seen("status")
        return [c["beat_index"] for c in claims if (c.get("task_id"), c["state"]) == ("ONE", state)]

    await until(lambda: claimed("executing"), "the task is not claimed")
    assert claimed("executing") == [backbeat.beat.index]
    backbeat.take(note("ONE", "", "completed"))
    await until(lambda: claimed("completed"), "the end is not claimed")
    one = [body for body in server.seen("operations") if body["subject"]["task_id"] == "ONE"]
    assert [(body["phase"], body["outcome"]) for body in one] == [("running", ""), ("", "completed")]
    assert one[-1]["phases"] == [{"name": "waiting", "duration_s": 0.5}]
    assert one[-1]["cluster_id"] == CLUSTER


async def slow(server: Server, backbeat: Backbeat) -> None:
    # Each POST is answered later than the client waits.
    server.misbehave("slow", seconds=3600)
    backbeat.take(note("SLOW"))
    await until(lambda: "no answer" in backbeat.send_trouble, "nobody noticed")
    fill(backbeat)


async def wrong(server: Server, backbeat: Backbeat) -> None:
    server.misbehave("wrong", status=500)
    backbeat.take(note("WRONG"))
    await until(lambda: "answered 500" in backbeat.send_trouble, "nobody noticed")
    await until(lambda: "answered 500" in backbeat.pulse_trouble, "nobody noticed")
    fill(backbeat)


async def redirecting(server: Server, backbeat: Backbeat) -> None:
    server.misbehave("wrong", status=307)
    backbeat.take(note("WRONG"))
    await until(lambda: "answered 307" in backbeat.send_trouble, "followed, or not noticed")
    # Not worth another try: nothing waits.
    await until(lambda: not len(backbeat.outgoing), "what is refused stays")


async def silent(server: Server, backbeat: Backbeat) -> None:
    server.misbehave("silent")
    backbeat.take(note("SILENT"))
    await until(lambda: "no answer" in backbeat.send_trouble, "nobody noticed")
    await until(lambda: "no answer" in backbeat.pulse_trouble, "nobody noticed")
    fill(backbeat)


async def lying(server: Server, backbeat: Backbeat) -> None:
    server.misbehave("lying")
    index, before = backbeat.beat.index, frames("malformed")
    server.beat()
    await until(lambda: frames("malformed") == before + 13, "not all lies were counted")
    assert backbeat.beat.index == index


async def garbage(server: Server, backbeat: Backbeat) -> None:
    server.misbehave("garbage")
    malformed, too_large = frames("malformed"), frames("too_large")
    server.beat()
    await until(lambda: frames("too_large") == too_large + 1, "not counted")
    assert frames("malformed") >= malformed + 3
    backbeat.take(note("GARBAGE"))
    await until(lambda: backbeat.send_trouble, "nobody noticed")
    fill(backbeat)


async def restarted(server: Server, backbeat: Backbeat) -> None:
    server.beat()
    server.kill()
    await until(lambda: backbeat.pulse_trouble, "nobody noticed")
    backbeat.take(note("AWAY"))
    server.start()
    # It counts from its own beginning again, and gets what waited.
    await until(lambda: "AWAY" in noted(server), "lost")


def fill(backbeat: Backbeat) -> None:
    """However much is noted meanwhile, nobody waits and memory stays bounded: the oldest are dropped."""
    lost = backbeat.outgoing.lost
    for number in range(QUEUE_MAX + 10):
        backbeat.take(note(f"MANY{number}"))
    assert len(backbeat.outgoing) == QUEUE_MAX
    assert backbeat.outgoing.lost >= lost + 10


FAULTS = (right, slow, wrong, redirecting, silent, lying, garbage, restarted)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_the_client_copes(fault: Callable[[Server, Backbeat], Awaitable[None]], server: Server) -> None:
    link = HttpLink(server.url, answer_s=0.3)
    async with running(settings_for(server.url), link) as backbeat:
        await in_step(server, backbeat)
        await fault(server, backbeat)
        await in_step(server, backbeat)


async def test_the_admin_interface_asks_for_its_token(server: Server) -> None:
    server._admin.headers["Authorization"] = "Bearer guessed"
    assert server._admin.post("/admin/fault", json={"fault": "wrong"}).status_code == 401
    assert server._admin.get("/admin/seen").status_code == 401


async def test_claims_are_like_the_frames_of_the_server(server: Server) -> None:
    """A server whose frames do not name their type gets claims that do not either."""
    async with running(settings_for(server.url), HttpLink(server.url)) as backbeat:
        await until(lambda: server.seen("status"), "no claim came")
        assert server.seen("status")[-1]["type"] == "backbeat.statusclaim.v1"
        backbeat.hear(
            b'{"cluster_id":"tests","beat_index":900,"downbeat":true,"phase":"plan","hlc":"0000:0000:0000",'
            b'"deadline_at":"2026-01-01T00:00:00Z","tempo_bpm":2,"window_id":"00000000000000000000000000000000"}'
        )
        await until(lambda: server.seen("status")[-1]["beat_index"] == 900, "not in step")
        assert "type" not in server.seen("status")[-1]
