"""What people say to a goal reaches the agent that runs it; a fake executor stands in for the one there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chorus.hub import HubError, HubNotFound, HubRefused, Request
from chorus.testing.fake_hub import FakeHub

from .conftest import T0, TASK_ID, Surface, attempt_row, task_row

PATH = f"/api/v1/tasks/{TASK_ID}/messages"
GOAL: dict[str, Any] = {"title": "t", "commands": []}


class Listener:
    """An executor that keeps what is said, once for each id, or answers with an error."""

    def __init__(self) -> None:
        self.heard: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.error: HubError | None = None

    async def serve(self, request: Request) -> dict[str, Any]:
        assert request.method == "message"
        self.asked.append((request.service, request.peer))
        if self.error is not None:
            raise self.error
        self.heard[request.head["id"]] = request.head
        return {"n": len(self.heard)}


@pytest.fixture
async def executors(surface: Surface) -> dict[str, Listener]:
    """The executors of agents a (whose surface it is) and b, which runs the goal."""
    here, there = Listener(), Listener()
    surface.table.row = task_row(
        task=GOAL, state="running", attempt=2, agent="peer-b", agent_id="b", vouched_by="peer-c"
    )
    surface.table.attempt_rows = [attempt_row(1, state="lost", agent="peer-a"), attempt_row(2)]
    await surface.mesh.hub("a", "executor").offer("executor", here.serve)
    await surface.mesh.hub("b", "executor").offer("output", there.serve, peers=True)
    return {"a": here, "b": there}


async def test_words_reach_the_agent_that_runs_the_goal(
    surface: Surface, executors: dict[str, Listener]
) -> None:
    answer = await surface.api.post(PATH, json={"text": "use the other parser", "name": "Ada"})
    assert answer.status_code == 202
    ident = answer.json()["id"]
    assert executors["b"].heard == {
        ident: {
            "task_id": TASK_ID, "attempt": 2, "id": ident, "text": "use the other parser", "name": "Ada",
            "from": "peer",
        }
    }  # fmt: skip
    assert executors["b"].asked == [("output", "peer-a")]
    assert executors["a"].asked == []


async def test_words_to_a_goal_of_this_agent_are_a_persons(
    surface: Surface, executors: dict[str, Listener]
) -> None:
    surface.table.attempt_rows[-1] = attempt_row(2, agent="peer-a", agent_id="a")
    assert (await surface.api.post(PATH, json={"text": "x"})).status_code == 202
    [heard] = executors["a"].heard.values()
    assert (heard["from"], heard["name"]) == ("person", "")
    assert executors["a"].asked == [("executor", None)]


async def test_words_through_the_agent_that_vouched_are_a_persons(
    surface: Surface, executors: dict[str, Listener]
) -> None:
    surface.table.row = task_row(task=GOAL, state="running", attempt=2, vouched_by="peer-a")
    assert (await surface.api.post(PATH, json={"text": "x"})).status_code == 202
    [heard] = executors["b"].heard.values()
    assert heard["from"] == "person"


async def test_what_is_sent_twice_is_said_once(surface: Surface, executors: dict[str, Listener]) -> None:
    for _ in range(2):
        answer = await surface.api.post(PATH, json={"text": "x", "id": TASK_ID})
        assert (answer.status_code, answer.json()) == (202, {"id": TASK_ID})
    assert list(executors["b"].heard) == [TASK_ID]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"title": "t", "commands": ["true"]}}, "only goals"),
        ({"state": "announced", "attempt": 0}, "is announced and does not run yet"),
        ({"state": "claimed"}, "is claimed and does not run yet"),
        ({"state": "failed", "finished_at": T0}, "ended already: failed; chorusctl ask --continue"),
    ],
)
async def test_what_hears_nothing_is_a_409_that_says_what_to_do(
    surface: Surface, executors: dict[str, Listener], changes: dict[str, Any], said: str
) -> None:
    surface.table.row = task_row(**{"task": GOAL, "state": "running", "attempt": 2, **changes})
    if changes.get("attempt") == 0:
        surface.table.attempt_rows = []
    answer = await surface.api.post(PATH, json={"text": "x"})
    assert answer.status_code == 409
    assert said in answer.json()["detail"]
    assert executors["b"].asked == []


async def test_an_unknown_task_is_a_404(surface: Surface) -> None:
    assert (await surface.api.post(PATH, json={"text": "x"})).status_code == 404
    assert (await surface.api.post("/api/v1/tasks/x/messages", json={"text": "x"})).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "é" * 4097}, "text"),
        ({"text": 3}, "text"),
        ({"text": "x", "name": "a\nb"}, "name"),
        ({"text": "x", "name": "n" * 65}, "name"),
        ({"text": "x", "id": "x"}, "id"),
        ({"text": "x", "from": "person"}, "from"),
    ],
)
async def test_a_bad_body_names_its_field(
    surface: Surface, executors: dict[str, Listener], body: dict[str, Any], field: str
) -> None:
    answer = await surface.api.post(PATH, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert executors["b"].asked == []


async def test_the_longest_words_are_taken(surface: Surface, executors: dict[str, Listener]) -> None:
    assert (await surface.api.post(PATH, json={"text": "é" * 4096})).status_code == 202


async def test_an_agent_that_is_away_is_a_503_with_the_id_to_repeat(
    surface: Surface, executors: dict[str, Listener]
) -> None:
    surface.mesh.cut("a", "b")
    answer = await surface.api.post(PATH, json={"text": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "agent b, which runs task" in answer.json()["detail"]
    surface.mesh.heal()
    again = {"text": "x", "id": answer.json()["id"]}
    assert (await surface.api.post(PATH, json=again)).json() == {"id": again["id"]}


async def test_a_goal_that_ends_meanwhile_is_a_409(
    surface: Surface, executors: dict[str, Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    executors["b"].error = HubNotFound("attempt 2 does not run here")
    answer = await surface.api.post(PATH, json={"text": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")  # the table does not say so yet
    tell = FakeHub.request

    async def told_late(hub: FakeHub, *args: Any, **more: Any) -> Any:
        surface.table.row = task_row(task=GOAL, state="completed", attempt=2, finished_at=T0)
        await asyncio.sleep(0)
        return await tell(hub, *args, **more)

    monkeypatch.setattr(FakeHub, "request", told_late)
    answer = await surface.api.post(PATH, json={"text": "x"})
    assert (answer.status_code, answer.json()["state"]) == (409, "completed")


async def test_a_refusal_keeps_its_reason(surface: Surface, executors: dict[str, Listener]) -> None:
    executors["b"].error = HubRefused("64 messages wait for this run; let it take a step first")
    answer = await surface.api.post(PATH, json={"text": "x"})
    assert answer.status_code == 409
    assert "let it take a step first" in answer.json()["detail"]


async def test_a_peer_reaches_no_executor_by_its_own_service(surface: Surface) -> None:
    with pytest.raises(HubError):
        await surface.hub.request("peer-b", "executor", "message", {})
