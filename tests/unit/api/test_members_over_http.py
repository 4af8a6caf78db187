"""Members over HTTP: lists, removal, joining another mesh, recovery, each through the election process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from chorus.hub import HubNotFound, HubNotLeader, HubRefused, Request
from chorus.wire.times import rfc3339

from .conftest import T0, Surface

PLAN = {"mesh": "mesh-1", "leader": None, "needed": True, "voters": [], "reachable": [], "longest": "a"}


@pytest.fixture
async def asked(surface: Surface) -> list[tuple[str, dict[str, Any]]]:
    """What the election process, of which this is a stand-in, was asked."""
    calls: list[tuple[str, dict[str, Any]]] = []

    async def election(request: Request) -> dict[str, Any]:
        calls.append((request.method, dict(request.head)))
        if request.method == "transfer":
            if request.head.get("to") == "b":
                raise HubNotLeader("this agent does not lead the mesh")
            return {"to": "peer-b"}
        if request.method == "remove" and request.head["id"] == "nobody":
            raise HubNotFound("the mesh lists no member nobody")
        if request.method == "remove" and not request.head["force"]:
            raise HubRefused("b is present: stop it first")
        return PLAN if request.method == "recovery" else {"agent_id": "b"}

    await surface.mesh.hub("a", "election").offer("election", election)
    return calls


async def test_the_removed_are_listed_only_when_they_are_asked_for(surface: Surface) -> None:
    def states(answer: Any) -> dict[str, str]:
        return {item["peer_id"]: item["state"] for item in answer.json()["items"]}

    assert states(await surface.api.get("/api/v1/members")) == {"peer-a": "present", "peer-b": "present"}
    answer = await surface.api.get("/api/v1/members", params={"all": "true"})
    assert states(answer) == {"peer-a": "present", "peer-b": "present", "peer-c": "removed"}
    gone = answer.json()["items"][-1]
    assert (gone["agent_id"], gone["voter"], gone["present"]) == ("b", False, False)
    assert (gone["removed_at"], gone["reason"]) == (rfc3339(T0 + 1000), "away for 600 s")
    odd = await surface.api.get("/api/v1/members", params={"all": "perhaps"})
    assert odd.status_code == 422
    assert odd.json()["errors"][0]["field"] == "all"


async def test_a_member_that_is_away_is_said_to_be(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [replace(row, present=row.agent_id == "a") for row in surface.table.members()]
    monkeypatch.setattr(surface.table, "members", lambda: rows)
    items = (await surface.api.get("/api/v1/members")).json()["items"]
    assert [item["state"] for item in items] == ["present", "away"]
    assert (await surface.api.get("/api/v1/status")).json()["mesh"]["present"] == 1


async def test_of_two_with_one_name_only_the_leader_leads(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [replace(row, agent_id="a") for row in surface.table.members()]
    monkeypatch.setattr(surface.table, "members", lambda: rows)
    items = (await surface.api.get("/api/v1/agents")).json()["items"]
    assert [item["leader"] for item in items] == [True, False]


async def test_a_removal_is_done_or_refused_with_the_reason(
    surface: Surface, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    refused = await surface.api.delete("/api/v1/members/b")
    assert (refused.status_code, refused.json()["detail"]) == (409, "b is present: stop it first")
    unknown = await surface.api.delete("/api/v1/members/nobody")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    done = await surface.api.delete("/api/v1/members/b", params={"force": "true"})
    assert done.status_code == 200
    assert done.json() == {"id": "b", "agent_id": "b", "removed": True}
    assert [head for _, head in asked] == [
        {"id": "b", "force": False},
        {"id": "nobody", "force": False},
        {"id": "b", "force": True},
    ]


async def test_a_recovery_has_to_name_the_mesh_of_its_plan(
    surface: Surface, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    plan = (await surface.api.get("/api/v1/members/recovery")).json()
    assert plan == {**PLAN, "holds": {"tasks": 3, "decisions": 2, "versions": 1}, "bringing": False}
    surface.context.settings.paths.data.mkdir()
    surface.context.settings.paths.carried.write_text("")
    assert (await surface.api.get("/api/v1/members/recovery")).json()["bringing"] is True
    for body in ({}, {"mesh": ""}, {"mesh": "m", "sure": True}):
        answer = await surface.api.post("/api/v1/members/recover", json=body)
        assert answer.status_code == 422
    assert all(method == "recovery" for method, _ in asked)
    done = await surface.api.post("/api/v1/members/recover", json={"mesh": "mesh-1"})
    assert done.status_code == 202
    assert asked[-1] == ("recover", {"mesh": "mesh-1", "force": False})


async def test_an_agent_rejoins(surface: Surface, asked: list[tuple[str, dict[str, Any]]]) -> None:
    assert (await surface.api.post("/api/v1/members/rejoin")).status_code == 202
    assert asked[-1][0] == "rejoin"


async def test_leadership_is_handed_over_by_the_leader_alone(
    surface: Surface, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    done = await surface.api.post("/api/v1/election/transfer")
    assert (done.status_code, done.json()) == (200, {"to": "b"})
    assert asked[-1] == ("transfer", {})
    other = await surface.api.post("/api/v1/election/transfer", json={"to": "b"})
    assert (other.status_code, asked[-1]) == (503, ("transfer", {"to": "b"}))
    assert "ask a, which leads the mesh" in other.json()["detail"]


@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.delete("/api/v1/members/b"),
        lambda api: api.post("/api/v1/members/rejoin"),
        lambda api: api.post("/api/v1/election/transfer"),
        lambda api: api.get("/api/v1/members/recovery"),
        lambda api: api.post("/api/v1/members/recover", json={"mesh": "m"}),
    ],
)
async def test_members_need_the_token(surface: Surface, call: Callable[[Any], Awaitable[Any]]) -> None:
    surface.api.headers["Authorization"] = "Bearer wrong"
    assert (await call(surface.api)).status_code == 401


async def test_the_routes_are_described(surface: Surface) -> None:
    paths = (await surface.api.get("/openapi.json")).json()["paths"]
    assert set(paths["/api/v1/members/{id}"]) == {"delete"}
    assert {"/api/v1/members/rejoin", "/api/v1/members/recovery", "/api/v1/members/recover"} <= set(paths)
