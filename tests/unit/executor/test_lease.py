"""The lease is kept while the leader answers, and lost on time when it does not."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from chorus.executor import lease as lease_module
from chorus.executor.lease import Lease
from chorus.hub import HubRefused, HubUnavailable, Request
from chorus.table.reader import TableReader
from chorus.testing.fake_hub import FakeMesh


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(lease_module.asyncio, "sleep", sleep)
    return now


async def kept(tmp_path: Path, clock: list[float], answers: list[Any]) -> tuple[str, float]:
    mesh = FakeMesh()
    mesh.found("a")
    leader, executor = mesh.hub("a", "coordinator"), mesh.hub("a", "executor")

    async def renew(request: Request) -> dict[str, Any]:
        answer = answers.pop(0) if answers else HubUnavailable("gone")
        if isinstance(answer, Exception):
            raise answer
        return {}

    await leader.offer("coordinator", renew, peers=True)
    made = Lease(executor, TableReader(tmp_path / "t"), "T", 1, "m", 30.0, clock[0], lambda: clock[0])
    return await made.keep(), clock[0] - 100.0


async def test_a_silent_leader_ends_it_after_one_lease(tmp_path: Path, clock: list[float]) -> None:
    reason, after = await kept(tmp_path, clock, [])
    assert "out of touch" in reason
    assert after == pytest.approx(30.0)


async def test_renewals_count_from_when_they_were_sent(tmp_path: Path, clock: list[float]) -> None:
    _, after = await kept(tmp_path, clock, [None, None, None])
    assert after == pytest.approx(60.0)


async def test_a_refusal_ends_it_at_once(tmp_path: Path, clock: list[float]) -> None:
    reason, after = await kept(tmp_path, clock, [None, HubRefused("superseded")])
    assert "superseded" in reason
    assert after == pytest.approx(20.0)


async def test_a_table_that_cannot_be_read_is_asked_again_within_the_lease(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mesh(_: TableReader) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(TableReader, "mesh", mesh)
    reason, after = await kept(tmp_path, clock, [None])
    assert "out of touch" in reason
    assert after == pytest.approx(30.0)
