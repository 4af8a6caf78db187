"""What an agent's own table says of an entry counts, whether the leader's answer has come or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from agents import DEADLINE_S, fresh_id, world


async def test_an_entry_that_is_applied_here_needs_no_answer_of_the_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, "ab") as w:
        proposals = w["b"].parts.proposals
        commit = proposals._hub.propose

        async def silent(*rest: Any, **more: Any) -> None:
            await commit(*rest, **more)
            await asyncio.Event().wait()

        monkeypatch.setattr(proposals._hub, "propose", silent)
        task_id = fresh_id()
        async with asyncio.timeout(DEADLINE_S):
            assert (await w["b"].submit(task_id=task_id))["created"]
        assert w["b"].task(task_id) is not None


async def test_a_proposal_that_is_given_up_takes_its_call_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, "ab") as w:
        proposals = w["b"].parts.proposals
        begun, ended = asyncio.Event(), asyncio.Event()

        async def stuck(*_: Any, **__: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        monkeypatch.setattr(proposals._hub, "propose", stuck)
        proposing = asyncio.create_task(proposals.propose("submit", {}, DEADLINE_S))
        async with asyncio.timeout(DEADLINE_S):
            await begun.wait()
            proposing.cancel()
            await ended.wait()
