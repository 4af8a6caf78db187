"""What the driver of a goal takes from the process `mind`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chorus.executor.goal import driver
from chorus.executor.goal.driver import GoalDriver
from chorus.hub import Request
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id
from chorus.wire.task import parse_task


async def test_the_prompts_of_a_run_are_those_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mind that is restarted in the middle may have others."""
    monkeypatch.setattr(driver, "_DRIVE_EVERY_S", 0.0)
    hashes, heard = ["", "a" * 64, "b" * 64], asyncio.Event()
    mesh = FakeMesh()

    async def mind(request: Request) -> dict[str, Any]:
        if not hashes:
            heard.set()
        return {"accepted": True, "prompts_sha256": hashes.pop(0) if hashes else ""}

    await mesh.hub("a", "mind").offer("mind", mind)
    room = SimpleNamespace(hub=mesh.hub("a", "executor"), settings=SimpleNamespace(role="general"))
    parts: Any = SimpleNamespace(room=room)
    work: Any = SimpleNamespace(
        job=SimpleNamespace(task_id=new_id(), attempt=1, task=parse_task({"title": "t"}))
    )
    goal: Any = SimpleNamespace(secret="s")
    one = GoalDriver(parts)
    driving = asyncio.create_task(one._keep_driving(work, goal))
    await heard.wait()
    driving.cancel()
    assert one._prompts_sha256 == "a" * 64
