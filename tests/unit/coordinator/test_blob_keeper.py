"""Which blobs are removed, and that strangers are served none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from agents import World, world

from chorus.blobs.ledger import Kept
from chorus.coordinator.blob_keeper import UNNAMED_MS, removable
from chorus.hub import HubRefused
from chorus.table.rows import BlobUse

NOW = 10 * UNNAMED_MS
RETENTION_MS = 5 * UNNAMED_MS
OPEN = BlobUse(True, 0)


def ended(hours_ago: float) -> BlobUse:
    return BlobUse(False, NOW - int(hours_ago * UNNAMED_MS))


@pytest.mark.parametrize(
    ("what", "uses", "total", "member", "gone"),
    [
        ("unnamed", {"a": None, "b": OPEN}, 1000, 1000, "a"),
        ("finished long ago", {"a": ended(5), "b": ended(4)}, 1000, 1000, "a"),
        ("crowded: the oldest first", {"a": ended(2), "b": ended(4), "c": OPEN}, 30, 1000, "b"),
        ("crowded: not the fresh", {"a": ended(0.5), "b": ended(0.9)}, 20, 1000, ""),
        ("crowded: not what is open", {"a": OPEN, "b": OPEN}, 20, 1000, ""),
        ("greedy", {"a": ended(2), "b": ended(3)}, 1000, 20, "b"),
    ],
)
def test_what_goes(what: str, uses: dict[str, BlobUse | None], total: int, member: int, gone: str) -> None:
    blobs = [Kept(name, "m", 10) for name in uses]
    assert removable(
        blobs,
        uses,
        now_ms=NOW,
        retention_ms=RETENTION_MS,
        used_bytes={"m": 10 * len(blobs)},
        total_max_bytes=total,
        member_max_bytes=member,
    ) == list(gone)


def late(w: World, name: str) -> None:
    """This agent's clock goes on by two hours."""
    keeper = w[name].parts.blob_keeper
    real = keeper._wall_ms
    keeper._wall_ms = lambda: real() + 2 * UNNAMED_MS


async def test_an_upload_that_no_task_named_goes_and_what_a_task_names_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        blobs = w["a"].parts.blobs
        for content in (b"source", b"input", b"idle"):
            await blobs.put_bytes(content)
        source, given, idle = (hashlib.sha256(c).hexdigest() for c in (b"source", b"input", b"idle"))
        answer = await w["a"].submit(source={"kind": "archive", "sha256": source}, stdin_sha256=given)
        task_id = answer["task"]["task_id"]
        task = await w["a"].state(task_id, "claimed")
        await w["a"].until(lambda: w["a"].parts.store.applied == len(w.mesh.entries), "up to date")
        assert await w["a"].parts.blob_keeper.sweep() == []
        late(w, "a")
        assert await w["a"].parts.blob_keeper.sweep() == [idle]
        assert [blobs.has(sha) for sha in (source, given, idle)] == [True, True, False]
        executor = next(agent for agent in w.agents.values() if agent.peer == task.agent).executor
        await executor.say("result", task_id=task_id, attempt=1, outcome="completed", exit_code=0)
        await w["a"].state(task_id, "completed")
        await w["a"].until(lambda: w["a"].parts.store.applied == len(w.mesh.entries), "up to date")
        # The mesh's clock of this test lies years back: longer ago than the retention.
        assert sorted(await w["a"].parts.blob_keeper.sweep()) == sorted([source, given])


async def test_nothing_goes_while_the_table_is_not_up_to_date(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["a"].parts.blobs.put_bytes(b"idle")
        late(w, "a")
        w.mesh.leader = None
        assert await w["a"].parts.blob_keeper.sweep() == []
        w.mesh.leader = w["a"].peer
        # Tasks of an earlier mesh, which may name it, are still being brought.
        carried = w["a"].parts.blob_keeper._process.settings.paths.carried
        carried.write_text("")
        assert await w["a"].parts.blob_keeper.sweep() == []
        carried.unlink()
        assert len(await w["a"].parts.blob_keeper.sweep()) == 1


async def test_strangers_are_served_nothing(tmp_path: Path) -> None:
    sha = hashlib.sha256(b"files").hexdigest()
    async with world(tmp_path) as w:
        await w["a"].parts.blobs.put_bytes(b"files")
        stranger = w.mesh.hub("s", "x")
        for method in ("blobs.has", "renew", "table.index"):
            with pytest.raises(HubRefused, match="only members"):
                await stranger.request(w["a"].peer, "coordinator", method, {"sha256": sha})
        for method in ("blobs.get", "blobs.put"):
            stream = await stranger.open_stream("coordinator", method, {"sha256": sha}, peer=w["a"].peer)
            async with stream:
                await stream.end()
                with pytest.raises(HubRefused, match="only members"):
                    await stream.read_all(1000)
        assert (await w["b"].hub.request(w["a"].peer, "coordinator", "blobs.has", {"sha256": sha})).head[
            "has"
        ]
