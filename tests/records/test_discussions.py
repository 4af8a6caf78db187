"""Discussions among agents with real cores: signed words, records that an agent finds which took no part."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from mesh import DEADLINE_S, Agent, Mesh, mesh, until

from chorus import decisions
from chorus.decisions import content
from chorus.hmmm.ids import message_id, session_id
from chorus.hub import Request
from chorus.table.records import Member
from chorus.table.records import Mesh as MeshRecord
from chorus.wire.messages import META_DISCUSSION


class Mind:
    """Stands in for an agent's model: objects to the first plan, or agrees; as owner it makes another."""

    def __init__(self, objects: bool) -> None:
        self.objects = objects

    async def serve(self, request: Request) -> dict[str, Any]:
        session = request.head["session"]
        if session["owner"]:
            return {"intent": "proposal", "message": "run the tests first"}
        if self.objects and session["plan"] == "just do it":
            return {"intent": "objection", "message": "nothing shows that it works"}
        return {"intent": "agreement", "message": "yes"}


async def goal(m: Mesh, owner: Agent) -> str:
    """A goal that the owner has claimed."""
    for agent in m.agents:
        await until(lambda agent=agent: _version(agent) >= 3)  # type: ignore[misc]
    for agent in m.agents[:3]:
        agent.models = [{"provider": "ollama", "model": agent.name, "local": True}]
        await agent.call("profile.refresh")
    for agent in m.agents:
        await until(lambda agent=agent: _models(agent) == 3)  # type: ignore[misc]
    body = {"title": "mend it", "commands": [], "required_model": owner.name, "project": "p"}
    task_id = await m.agents[0].submit(**body)
    for agent in m.agents:
        await until(lambda agent=agent: _claimed(agent, task_id))  # type: ignore[misc]
    return task_id


def _version(agent: Agent) -> int:
    assert agent.coordinator is not None
    found = agent.coordinator.store.get(MeshRecord, "mesh")
    return found.version if found is not None else 0


def _models(agent: Agent) -> int:
    assert agent.coordinator is not None
    return sum(bool(member.models) for member in agent.coordinator.store.records(Member))


def _claimed(agent: Agent, task_id: str) -> bool:
    row = agent.table.task(task_id)
    return row is not None and row.state == "claimed"


async def test_an_objection_changes_the_plan_and_an_agent_without_part_finds_the_record(
    tmp_path: Path,
) -> None:
    async with mesh(tmp_path, "abcd") as m:
        for name in "abc":
            await (await m[name].process_hub("mind")).offer("mind", Mind(objects=name == "b").serve)
        owner, last = m["a"], m["d"]
        task_id = await goal(m, owner)
        session = session_id(task_id, 1)

        # A member says that it is another: nobody counts its word.
        forged = {
            "session_id": session, "message_id": "1" * 26, "message": "no", "intent": "objection",
            "parent_id": message_id(session, owner.hub.peer_id, "", ""), "citations": [],
            "from": {"agent_id": "c", "role": ""}, "timestamp": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip
        opened = await owner.call("hmmm.open", task_id=task_id, attempt=1, plan="just do it")
        assert opened == {"session_id": session}
        await last.hub.publish(META_DISCUSSION, "hmmm.message", forged)

        said: dict[str, Any] = {"over": False}
        async with asyncio.timeout(DEADLINE_S):
            while not said["over"] or said["address"] is None:
                said = await owner.call("hmmm.result", session_id=session, wait_s=1)
        assert (said["outcome"], said["plan"]) == ("unanimous", "run the tests first")

        await until(lambda: bool(last.table.decisions(kind="hmmm_outcome").items))
        (row,) = last.table.decisions(kind="hmmm_outcome").items
        assert row.address == said["address"]
        record = (await decisions.fetch(last.hub, row.hash, listed=row)).record
        assert record["decided"]["participants"] == sorted(m[name].hub.peer_id for name in "abc")
        (address,) = record["links"]["derived_from"]
        version = last.table.ucxl.version(address, 1)
        assert version is not None
        transcript = await content.fetch(last.hub, version)
        assert content.sha256(transcript) == record["decided"]["transcript_sha256"]
        messages = [line for line in map(orjson.loads, transcript.splitlines()) if "message_id" in line]
        assert "1" * 26 not in [line["message_id"] for line in messages]
        better = next(line for line in messages if line["message"] == "run the tests first")
        objection = next(line for line in messages if line["intent"] == "objection")
        assert objection["from"]["agent_id"] == "b"
        assert better["citations"][0]["ucxl"].endswith(objection["message_id"])
