"""A disk that is full, or fails, stops the table where it is; it goes on by itself from there."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agents import DEADLINE_S, fresh_id, world

from chorus.config.load import load_settings
from chorus.coordinator import follower
from chorus.coordinator.service import open_table
from chorus.hub import DISK_PREFIX, HubError, HubTimeout
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.table.records import Change
from chorus.table.store import TableStore
from chorus.testing.fake_hub import FakeMesh


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "DISK_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(follower, "DISK_RETRY_MAX_S", 0.02)


def pages(store: TableStore, most: int | None) -> None:
    """No more pages than `most`, or than now."""
    now = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {now if most is None else most}")


async def test_a_full_disk_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    async with world(tmp_path, "ab") as w:
        b = w["b"].parts
        before = b.store.applied
        pages(b.store, None)
        # More than one batch, and more than fits on the pages that are there.
        ids = [fresh_id() for _ in range(3 * follower.BATCH_MAX_ENTRIES)]
        for task_id in ids:
            body = {"title": "t", "commands": ["true"], "description": "x" * 2000}
            w.mesh.append(
                "submit",
                w["a"].peer,
                {"task_id": task_id, "task": body, "submitter": w["a"].peer, "vouched_by": w["a"].peer},
            )
        await w["b"].until(lambda: b.follower.error is not None, "the error is named")
        health = await w["b"].call("health")
        assert health["ok"] is False
        assert "full" in health["detail"]
        stuck = b.store.applied
        assert before <= stuck < len(w.mesh.entries)
        with pytest.raises(HubError, match="full") as refused:
            await w["b"].submit()
        assert refused.value.message.startswith(DISK_PREFIX)
        pages(b.store, 1_000_000)
        await w["b"].until(lambda: b.store.applied == len(w.mesh.entries), "it goes on")
        assert b.follower.error is None
        assert (await w["b"].call("health"))["ok"] is True
        for task_id in ids:
            mine, theirs = w["b"].task(task_id), w["a"].task(task_id)
            assert mine is not None
            assert mine == theirs
        told = [change for change in b.store.records(Change) if change.task_id in set(ids)]
        assert told == [c for c in w["a"].parts.store.records(Change) if c.task_id in set(ids)]
        assert (await w["b"].submit())["created"]


async def test_an_error_at_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, "ab") as w:
        store = w["b"].parts.store
        commit, failures = store._commit, 0

        def fail_late(applied: int, stamp: int) -> None:
            nonlocal failures
            failures += 1
            if failures < 4:
                raise sqlite3.OperationalError("disk I/O error")
            commit(applied, stamp)

        monkeypatch.setattr(store, "_commit", fail_late)
        task_id = (await w["a"].submit())["task"]["task_id"]
        await w["b"].until(lambda: w["b"].task(task_id) is not None, "applied after all")
        assert failures >= 4
        failures = 0
        # Who waits for an entry is not left waiting until the disk is back.
        with pytest.raises(HubTimeout, match="I/O"):
            await w["b"].submit()
        await w["b"].until(lambda: w["b"].parts.store.applied == len(w.mesh.entries), "the same table")


async def test_a_small_file_system(small_disk: Path, filler: Callable[[], Path]) -> None:
    """The same with a real one, which is full for everything that lies on it."""
    async with world(small_disk, "a") as w:
        file = filler()
        store = w["a"].parts.store
        submitted: list[asyncio.Task[object]] = []
        # The table's files have some room of their own; it is used up sooner or later.
        async with asyncio.timeout(DEADLINE_S):
            while w["a"].parts.follower.error is None:
                submitted.append(asyncio.create_task(w["a"].submit(description="x" * 50_000)))
                await asyncio.wait(submitted[-1:], timeout=0.05)
        assert "full" in (await w["a"].call("health"))["detail"]
        file.unlink()
        await w["a"].until(lambda: store.applied == len(w.mesh.entries), "it goes on")
        await asyncio.gather(*submitted, return_exceptions=True)
        assert (await w["a"].submit())["created"]


async def test_a_table_that_cannot_be_opened_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = FakeMesh()
    mesh.found("a")
    place = tmp_path / "a"
    settings = load_settings({"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "a"})
    settings = replace(settings, data_dir=place, run_dir=place)
    process = Process("coordinator", settings, Logger(logging.getLogger("chorus.test")))
    process._hub = mesh.hub("a", "coordinator")
    place.write_text("where a folder should be")
    offered = asyncio.Event()
    offer = process.hub.offer

    async def noticed(*args: Any, **named: Any) -> None:
        await offer(*args, **named)
        offered.set()

    monkeypatch.setattr(process.hub, "offer", noticed)
    opening = asyncio.create_task(open_table(process))
    api = mesh.hub("a", "api")
    async with asyncio.timeout(DEADLINE_S):
        await offered.wait()
    assert "cannot be opened" in (await api.call_service("coordinator", "health")).head["detail"]
    with pytest.raises(HubError, match="cannot be opened") as refused:
        await api.call_service("coordinator", "table.submit", payload=b"{}")
    assert refused.value.message.startswith(DISK_PREFIX)
    place.unlink()
    async with asyncio.timeout(DEADLINE_S):
        store = await opening
    assert store is not None
    store.close()
