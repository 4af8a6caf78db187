"""What an attempt left is served by whoever holds a copy, and what nobody holds is said to be lost."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from chorus.hub import HubNotFound
from chorus.table.held import Holder

from .conftest import T0, TASK_ID, Executor, Surface, attempt_row, task_row

BASE = f"/api/v1/tasks/{TASK_ID}"
CONTENT = b"0123456789"


@pytest.fixture
async def copy(surface: Surface) -> Executor:
    """A member c, which holds a copy of what the task left on b; b is away."""
    item = {"path": "a.txt", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    ended: dict[str, Any] = {"state": "completed", "finished_at": T0, "agent": "peer-b", "agent_id": "b"}
    surface.table.row = task_row(attempt=1, result={"artifacts": [item]}, **ended)
    surface.table.attempt_rows = [attempt_row(state="completed", finished_at=T0)]
    surface.table.holders = [Holder("peer-b", "b", False), Holder("peer-c", "c", True)]
    surface.executor.away = True
    holder = Executor()
    holder.stdout = CONTENT
    hub = surface.mesh.hub("c", "executor")
    await hub.offer("output", holder.serve, peers=True, streams=holder.stream)
    return holder


@pytest.mark.parametrize("present", [True, False])
async def test_artifacts_and_logs_come_from_who_has_them(
    surface: Surface, copy: Executor, present: bool
) -> None:
    # Also when the table does not know yet that b is away.
    surface.table.holders[0] = Holder("peer-b", "b", present)
    answer = await surface.api.get(f"{BASE}/artifacts/a.txt", headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")
    assert (await surface.api.get(f"{BASE}/artifacts.tar")).status_code == 200
    assert (await surface.api.get(f"{BASE}/logs")).content == CONTENT


async def test_who_does_not_have_it_is_passed_over(surface: Surface, copy: Executor) -> None:
    async def nothing(request: Any, stream: Any) -> None:
        raise HubNotFound("attempt 1 has left nothing here")

    surface.table.holders[0] = Holder("peer-b", "b", True)
    await surface.mesh.hub("b", "executor").offer("output", copy.serve, peers=True, streams=nothing)
    assert (await surface.api.get(f"{BASE}/logs")).content == CONTENT
    surface.table.holders.pop()
    assert (await surface.api.get(f"{BASE}/logs")).status_code == 404


async def test_the_story_comes_from_who_has_it(surface: Surface, copy: Executor) -> None:
    copy.add("state", {"state": "running"})
    copy.add("output", {"stream": "stdout", "command": 1, "text": "said"})
    copy.finish()
    story = (await surface.api.get(f"{BASE}/events")).text
    events = [line.removeprefix("event: ") for line in story.splitlines() if line.startswith("event: ")]
    assert events[:2] == ["state", "output"]
    assert "gap" not in events


async def test_what_nobody_holds_is_gone_and_named(surface: Surface, copy: Executor) -> None:
    surface.table.holders = []
    surface.table.lost = ["output", "artifacts"]
    for path in ("artifacts/a.txt", "artifacts.tar", "logs"):
        answer = await surface.api.get(f"{BASE}/{path}")
        assert answer.status_code == 410
        assert "only agent b held what attempt 1 left, and it was removed" in answer.json()["detail"]
    assert (await surface.api.get(BASE)).json()["lost"] == ["output", "artifacts"]
    story = (await surface.api.get(f"{BASE}/events")).text
    gap = next(line for line in story.splitlines() if line.startswith("data: ") and '"lost"' in line)
    assert "it was removed" in orjson.loads(gap.removeprefix("data: "))["detail"]
