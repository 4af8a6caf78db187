"""The leader raises the version of the table once every member knows the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Executor, world

from chorus.coordinator import leading, profile
from chorus.coordinator.table_version import Raise, next_version
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Member, Mesh

KNOWS, KNOWS_NOT = Member("p1", agent_id="new", table_version=2), Member("p2", agent_id="old")
NAMELESS = Member("p3")


def test_the_next_version_waits_for_every_member() -> None:
    mesh = Mesh(version=1)
    assert next_version(mesh, [KNOWS], newest=2) == Raise(2)
    assert Raise(2).due
    held = next_version(mesh, [NAMELESS, KNOWS, KNOWS_NOT], newest=2)
    assert held == Raise(2, ("old", "p3"))
    assert not held.due


def test_there_is_no_version_after_the_newest_that_is_known() -> None:
    assert next_version(Mesh(version=2), [KNOWS, KNOWS_NOT], newest=2) is None


def test_versions_are_raised_one_at_a_time() -> None:
    assert next_version(Mesh(version=1), [Member("p", table_version=9)], newest=3) == Raise(2)


def version_of(agent: Agent) -> int:
    mesh = agent.parts.store.get(Mesh, "mesh")
    return mesh.version if mesh is not None else 0


async def test_a_mesh_of_this_release_has_its_version(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        for agent in mesh.agents.values():
            await agent.until(lambda agent=agent: version_of(agent) == TABLE_VERSION)  # type: ignore[misc]
        health = await mesh.leader.call("health")
        assert (health["table_version"], health["held_back_by"]) == (TABLE_VERSION, [])


async def test_a_new_mesh_comes_to_its_version_without_waiting_for_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The leader's rounds and the members' looks at themselves are further apart than this test waits.
    monkeypatch.setattr(leading, "TICK_S", 3600.0)
    monkeypatch.setattr(profile, "ASK_S", 3600.0)
    async with world(tmp_path) as mesh:
        await mesh["b"].until(lambda: version_of(mesh["b"]) == TABLE_VERSION)


async def test_models_are_said_as_soon_as_the_table_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "ASK_S", 3600.0)
    made = {"provider": "ollama", "model": "m", "local": True}
    monkeypatch.setattr(Executor, "MODELS", [made])
    async with world(tmp_path, "a") as mesh:

        def models() -> list[Any]:
            member = mesh["a"].parts.store.get(Member, mesh["a"].peer)
            return list(member.models) if member is not None else []

        await mesh["a"].until(lambda: models() == [made])


async def test_members_of_an_older_release_hold_it_back_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each member says what it knows when it is told to, and not by itself.
    monkeypatch.setattr(profile, "ASK_S", 3600.0)
    with monkeypatch.context() as older:
        older.setattr(profile, "TABLE_VERSION", 1)
        async with world(tmp_path, "ab") as mesh:
            leader = mesh.leader
            await leader.until(lambda: leader.parts.leading.held_back_by == ("a", "b"))
            assert (await leader.call("health"))["held_back_by"] == ["a", "b"]
            assert version_of(leader) == 1
            # They are upgraded, one after the other.
            older.undo()
            mesh["a"].parts.profile.refresh()
            await leader.until(lambda: leader.parts.leading.held_back_by == ("b",))
            mesh["b"].parts.profile.refresh()
            await leader.until(lambda: version_of(leader) == TABLE_VERSION)
