"""What an agent still has to say when it was removed: kept, and said once it is a member again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from test_publisher import BODY, FACTS, TASK_ID, Agent, Killed, settle

from chorus.executor.outbox import Item
from chorus.executor.room import Room
from chorus.hub import HubError, HubNoMesh, HubNotPermitted, HubRefused, Request
from chorus.table.transitions import SEEN_MAX_AGE
from chorus.wire.ids import new_id

NOT_NOW = [
    "the author is not a member",
    "the mesh is not founded",
    f"made more than {SEEN_MAX_AGE} entries ago",
    "unknown: this version of the table has no entries of that type",
]


class Table:
    """Stands in for the coordinator: remembers by id what it refused, as the table does."""

    def __init__(self, refuse: str, type: str, times: int) -> None:
        self.refuse, self.type, self.times = refuse, type, times
        self.known: dict[str, dict[str, Any]] = {}
        self.said: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.before: Callable[[str], None] = lambda ident: None

    async def serve(self, request: Request) -> dict[str, Any]:
        type, ident = request.head["type"], request.head["id"]
        self.before(ident)
        self.said.append((type, ident))
        self.bodies.append(orjson.loads(request.payload))
        if ident not in self.known:
            refused = type == self.type and self.times > 0
            self.times -= refused
            self.known[ident] = {"accepted": not refused, "reason": self.refuse if refused else ""}
        return self.known[ident]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr("chorus.executor.proposals._RETRY_FIRST_S", 0.0)
    monkeypatch.setattr("chorus.executor.publisher._RETRY_FIRST_S", 0.0)


async def agent_with(folder: Path, table: Table) -> tuple[Agent, Room]:
    """An agent with a result to say."""
    agent = Agent(folder)
    await agent.mesh.hub("a", "coordinator").offer("coordinator", table.serve)
    room = agent.room()
    room.outbox.put(Item(TASK_ID, 1, "result", new_id(), BODY, FACTS))
    return agent, room


@pytest.mark.parametrize("reason", NOT_NOW)
@pytest.mark.parametrize("type", ["result", "decision"])
async def test_what_is_refused_for_now_is_said_again(tmp_path: Path, reason: str, type: str) -> None:
    table = Table(reason, type, times=3)
    agent, room = await agent_with(tmp_path, table)
    await settle(room)
    ids = [ident for said, ident in table.said if said == type]
    assert len(ids) == len(set(ids)) == 4
    assert table.known[ids[-1]]["accepted"]
    # It is the whole result, and all that follows it was done once.
    assert all(body["summary"] == BODY["summary"] for body in table.bodies if "summary" in body)
    assert agent.logged() == ["decision_published", "task_completed"]
    assert agent.told() == ["end"]
    assert room.outbox.items() == []
    room.outbox.close()


async def test_the_id_under_which_it_is_said_again_is_on_the_disk_first(tmp_path: Path) -> None:
    table = Table(NOT_NOW[0], "result", times=2)
    _, room = await agent_with(tmp_path, table)
    kept: list[bool] = []

    def look(ident: str) -> None:
        kept.append(any(item.entry_id == ident for item in room.outbox.items()))

    table.before = look
    await settle(room)
    assert kept
    assert all(kept)
    room.outbox.close()


@pytest.mark.parametrize("type", ["result", "decision"])
async def test_a_kill_while_it_waits_loses_nothing(tmp_path: Path, type: str) -> None:
    table = Table(NOT_NOW[0], type, times=2)
    agent, room = await agent_with(tmp_path, table)

    def kill(ident: str) -> None:
        if len([said for said, _ in table.said if said == type]) == 2:
            table.before = lambda ident: None
            raise Killed

    table.before = kill
    with contextlib.suppress(Killed, AssertionError):
        await settle(room)
    room.outbox.close()
    room = agent.room()
    await settle(room)
    assert table.known[[ident for said, ident in table.said if said == type][-1]]["accepted"]
    assert agent.logged() == ["decision_published", "task_completed"]
    assert room.outbox.items() == []
    room.outbox.close()


NOT_TAKEN = [
    HubNotPermitted("peer-a is no member"),
    HubRefused("the entry is of mesh m1, not m2"),
    HubNoMesh("this agent is in no mesh"),
]


@pytest.mark.parametrize("error", NOT_TAKEN, ids=lambda error: error.code)
async def test_what_no_leader_takes_from_a_removed_agent_waits(tmp_path: Path, error: HubError) -> None:
    table = Table("", "", times=0)
    agent, room = await agent_with(tmp_path, table)
    refused: list[str] = []

    def refuse(ident: str) -> None:
        if len(refused) < 3:
            refused.append(ident)
            raise error

    table.before = refuse
    await settle(room)
    assert len(set(refused)) == 1
    # It was never in the log, and so its id is as good as new.
    assert table.said[0] == ("result", refused[0])
    assert agent.logged() == ["decision_published", "task_completed"]
    assert table.bodies[0]["summary"] == BODY["summary"]
    room.outbox.close()


async def test_a_result_whose_attempt_this_mesh_does_not_know_is_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table("no such attempt", "result", times=9)
    agent, room = await agent_with(tmp_path, table)
    with caplog.at_level(logging.WARNING):
        await settle(room)
    assert len(table.said) == 1
    assert "a result is dropped: this mesh knows nothing of its attempt" in caplog.text
    assert agent.logged() == []
    assert room.outbox.items() == []
    room.outbox.close()
